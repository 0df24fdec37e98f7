"""A fault: one small error to plant in a copy of the package."""

import dataclasses

AREAS = (
    *("tricks", "models", "data", "training", "checkpoints", "export"),
    *("detection", "segmentation", "interop", "ablation", "cli"),
)
KINDS = (
    *("wrong sign", "off by one", "dropped term", "wrong axis"),
    *("swapped arguments", "ignored flag", "wrong default"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault that is valid Python, imports without an error and changes what a user observes.

    Attributes:
        area: one of `AREAS`.
        kind: one of `KINDS`. A reversed direction or condition counts as a wrong sign.
        file: path of the file in keras_bot/.
        old: text that occurs exactly once in the file, inside a function's body wherever possible.
        new: text to replace it with.
        harm: what goes wrong for a user.
        seen: difference that was observed or follows from the code, so that the fault is not an equivalent program.
        tests: test files or folders below tests/ to run first; those named like the file are added, see
            `run.near_tests`.
    """

    area: str
    kind: str
    file: str
    old: str
    new: str
    harm: str
    seen: str
    tests: tuple[str, ...] = ()

    def plant(self, source: str) -> str:
        """Returns the source with the fault. Raises ValueError unless the old text occurs exactly once."""
        if (count := source.count(self.old)) != 1:
            raise ValueError(f"{self.file} contains {self.old!r} {count} times instead of once.")
        planted = source.replace(self.old, self.new)
        compile(planted, self.file, "exec")
        return planted
