"""Contents of an ablation's directory, and checks that finished runs are unchanged.

OUT/ablation.json          resolved recipes, and the SHA-256 of the records of each finished run
OUT/ROW/seed0/             a run directory
OUT/ROW/seed0.flags, .log  flags and output of its training
OUT/table.json, …          see `results`, `tables`, `plots`
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence

from keras_bot.ablation.rows import LEDGER, Row
from keras_bot.ablation.validate import Trainer
from keras_bot.atomic_files import is_partial, write_atomically
from keras_bot.errors import MisuseError, first_few
from keras_bot.recipe import Recipe, current_names, differences, read_flag_lines

DONE, BEGUN, LEFT = "done", "begun", "left"
_RECORDS = ("metrics.json", "history.csv")
_LAST_WRITTEN = "curves.png"  # by training


@dataclasses.dataclass(frozen=True)
class Run:
    """Training of one row (recipe) with one seed, and its location in the ablation's directory."""

    row: Row
    seed: int
    out: pathlib.Path

    @property
    def name(self) -> str:
        """Path of the run directory relative to the ablation's directory."""
        return f"{self.row.name}/seed{self.seed}"

    @property
    def recipe(self) -> Recipe:
        """The recipe to train."""
        return self.row.with_seed(self.seed)

    @property
    def directory(self) -> pathlib.Path:
        """The run directory."""
        return self.out / self.name

    def beside(self, suffix: str) -> pathlib.Path:
        """Returns the path of the run directory with a suffix such as ".log"."""
        return self.out / f"{self.name}{suffix}"


class Ledger:
    """The contents of `ablation.json`, existing or new. Nothing is written before `begin` or `record`.

    Args:
        out: the ablation's directory.

    Attributes:
        trainer: result of the recipe check; None before the first check.

    Raises:
        MisuseError: if `out` is a file or contains other files, or its ablation.json is damaged.
    """

    def __init__(self, out: pathlib.Path):
        self.out = out
        self._path = out / LEDGER
        self._told = {"rows": {}, "runs": {}}
        self.trainer: Trainer | None = None
        if out.exists() and not out.is_dir():
            raise MisuseError(f"Expected a directory as --out, received the file {out}.")
        if not self._path.exists():
            others = sorted(path.name for path in out.glob("*") if path.name != ".lock" and not is_partial(path.name))
            if others:
                raise MisuseError(
                    f"Expected an --out that is new or an ablation's, but {out} holds other files "
                    f"({first_few(others)}). Choose another."
                )
            return
        try:
            self._told = json.loads(self._path.read_text(encoding="utf-8"))
            self.trainer = Trainer(tuple(self._told["metrics"]), current_names(self._told["may_differ"]))
            if not self.trainer.metrics:
                raise TypeError
            recipes = [row["recipe"] for row in self._told["rows"].values()]
            records = [run.get("files") for run in self._told["runs"].values()]
            if not all(isinstance(told, dict) for told in [*recipes, *filter(None, records)]):
                raise TypeError
        except (OSError, ValueError) as error:
            raise MisuseError(f"Can't read {self._path}: {error}. Put it back, or choose another --out.") from None
        except (KeyError, TypeError, AttributeError):
            raise MisuseError(
                f"Expected {self._path} as `keras-bot ablate` wrote it, received other JSON. Put it back, or choose "
                "another --out."
            ) from None

    def unchecked(self, rows: Sequence[Row]) -> list[Row]:
        """Returns the rows whose recipes aren't in this ledger.

        Raises:
            MisuseError: if the ledger has another recipe for a row, and a run of that row has begun.
        """
        new = []
        for row in rows:
            stored = self._told["rows"].get(row.name)
            differing = stored and differences(stored["recipe"], row.recipe, self._may_differ("seed"))
            if differing and any((self.out / row.name).glob("seed*/run.flags")):
                raise MisuseError(
                    f"{self.out} holds runs of row {row.name} by another recipe ({'; '.join(differing)}). "
                    "Choose another --out, or give the recipe as it was."
                )
            if differing or not stored:
                new.append(row)
        return new

    def _may_differ(self, *more):
        return (*(self.trainer.may_differ if self.trainer else ()), *more)

    def begin(self, runs: Sequence[Run], **facts):
        """Writes the requested rows and runs, with `facts`; keeps the entries of other rows and runs."""
        facts |= {"rows_in_order": list(dict.fromkeys(run.row.name for run in runs))}
        self._told = {**facts, **dataclasses.asdict(self.trainer), **{k: self._told[k] for k in ("rows", "runs")}}
        for run in runs:
            self._told["rows"][run.row.name] = {"file": run.row.file, "recipe": run.row.recipe.as_text()}
            self._told["runs"].setdefault(run.name, {})
        self._write()

    def record(self, run: Run):
        """Records the SHA-256 of a finished run's records."""
        self._told["runs"][run.name]["files"] = {name: _sha256(run.directory / name) for name in _RECORDS}
        self._write()

    def is_recorded(self, run: Run) -> bool:
        """Returns whether `record` was called for the run."""
        return bool(self._files(run))

    def _files(self, run):
        return self._told["runs"].get(run.name, {}).get("files") or {}

    def _write(self):
        write_atomically(self._path, json.dumps(self._told, indent=2, ensure_ascii=False) + "\n")

    def state(self, run: Run) -> str:
        """Returns DONE, BEGUN or LEFT.

        Raises:
            MisuseError: if the run directory contains a run of another recipe, or its records were changed.
        """
        folder = run.directory
        for place in (folder.parent, folder):
            if place.exists() and not place.is_dir():
                raise MisuseError(f"Expected a directory for runs at {place}, found a file. Move it away.")
        if not folder.exists():  # deleting the directory requests a new run
            return LEFT
        for name, left_there in self._files(run).items():
            if not (folder / name).is_file() or _sha256(folder / name) != left_there:
                raise self._changed(run, f"{name} isn't what the run left there")
        flags, metrics = folder / "run.flags", folder / "metrics.json"
        if self.is_recorded(run) and not flags.exists():
            raise self._changed(run, "run.flags is missing")
        if flags.exists():
            self._compare(run, flags, read_flag_lines(flags.read_text(encoding="utf-8", errors="replace")))
        if not metrics.exists():
            return BEGUN if flags.exists() else LEFT
        told = self._read_metrics(run, metrics)
        self._compare(run, metrics, told["recipe"])
        finished = told["result"]["epochs"] == run.recipe.epochs and (folder / _LAST_WRITTEN).exists()
        return DONE if finished or self.is_recorded(run) else BEGUN

    def _read_metrics(self, run, path):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            dict(told["recipe"]), told["result"]["epochs"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._changed(run, f"metrics.json can't be read: {error}") from None
        return told

    def _compare(self, run, path, settings):
        differing = differences(settings, run.recipe, self._may_differ())
        if differing:
            raise self._changed(run, f"{path.name} tells of another recipe: {'; '.join(differing)}")

    def _changed(self, run, what):
        return MisuseError(
            f"The run directory {run.directory} was changed: {what}. Put it back as it was, choose another --out, or "
            "delete that directory to have the run again."
        )


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
