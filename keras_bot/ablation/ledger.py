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
from typing import Any

from keras_bot.ablation.rows import LEDGER, Row
from keras_bot.ablation.validate import TrainerInfo
from keras_bot.atomic_files import is_partial, write_atomically
from keras_bot.errors import MisuseError, first_few
from keras_bot.recipe import Recipe
from keras_bot.recipe.text import current_names, differences, read_flag_lines

FINISHED, STARTED, PENDING = "finished", "started", "pending"
_RECORDS = ("metrics.json", "history.csv")
_LAST_WRITTEN = "curves.png"  # by training


@dataclasses.dataclass(frozen=True)
class AblationRun:
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

    @property
    def flagfile(self) -> pathlib.Path:
        """Flagfile of the training run."""
        return self.out / f"{self.name}.flags"

    @property
    def log(self) -> pathlib.Path:
        """Log file of the training run."""
        return self.out / f"{self.name}.log"


class Ledger:
    """The contents of `ablation.json`, existing or new. Nothing is written before `begin` or `record`.

    Args:
        out: the ablation's directory.

    Attributes:
        trainer: result of the recipe check; None before the first check.

    Raises:
        MisuseError: if `out` is a file or contains other files, or its ablation.json is damaged.
    """

    def __init__(self, out: pathlib.Path) -> None:
        self.out = out
        self._path = out / LEDGER
        self._content: dict[str, Any] = {"rows": {}, "runs": {}}
        self.trainer: TrainerInfo | None = None
        if out.exists() and not out.is_dir():
            raise MisuseError(f"--out={out} is a file. Pass a directory.")
        if self._path.exists():
            self._read()
            return
        others = sorted(path.name for path in out.glob("*") if path.name != ".lock" and not is_partial(path.name))
        if others:
            raise MisuseError(
                f"--out={out} contains files but no ablation ({first_few(others)}). Choose a new or empty directory."
            )

    def _read(self):
        """Reads ablation.json; field names of an earlier version are accepted. Raises MisuseError if it is damaged."""
        try:
            self._content = json.loads(self._path.read_text(encoding="utf-8"))
            metrics, may_differ = (self._content[name] for name in ("metrics", "may_differ"))
            self.trainer = TrainerInfo(tuple(metrics), current_names(may_differ))
            recipes = [row["recipe"] for row in self._content["rows"].values()]
            records = [run.get("files") for run in self._content["runs"].values()]
            valid = all(isinstance(entry, dict) for entry in [*recipes, *filter(None, records)])
            if not metrics or not valid:
                raise TypeError
        except (OSError, ValueError) as error:
            raise MisuseError(f"Cannot read {self._path}: {error}. Restore it, or choose another --out.") from None
        except (KeyError, TypeError, AttributeError):
            raise MisuseError(
                f"{self._path} was edited, or not written by `keras-bot ablate`. Restore it, or choose another --out."
            ) from None

    def new_rows(self, rows: Sequence[Row]) -> list[Row]:
        """Returns the rows whose recipes aren't in this ledger.

        Raises:
            MisuseError: if the ledger has another recipe for a row, and a run of that row was started.
        """
        new = []
        for row in rows:
            stored = self._content["rows"].get(row.name)
            differing = stored and differences(stored["recipe"], row.recipe, self._may_differ("seed"))
            if differing and any((self.out / row.name).glob("seed*/run.flags")):
                raise MisuseError(
                    f"--out={self.out} contains runs of row {row.name} with another recipe ({'; '.join(differing)}). "
                    "Choose another --out, or restore the recipe."
                )
            if differing or not stored:
                new.append(row)
        return new

    def _may_differ(self, *more):
        return (*(self.trainer.may_differ if self.trainer else ()), *more)

    def require_trainer(self) -> TrainerInfo:
        """Returns `trainer`. Raises ValueError before the first recipe check."""
        if self.trainer is None:
            raise ValueError("The recipes were not checked yet. Set `trainer` to the result of `check_recipes`.")
        return self.trainer

    def begin(self, runs: Sequence[AblationRun], **facts: Any) -> None:
        """Writes the requested rows and runs, with `facts`; keeps the entries of other rows and runs."""
        facts |= {"rows_in_order": list(dict.fromkeys(run.row.name for run in runs))}
        entries = {name: self._content[name] for name in ("rows", "runs")}
        self._content = {**facts, **dataclasses.asdict(self.require_trainer()), **entries}
        for run in runs:
            self._content["rows"][run.row.name] = {"file": run.row.file, "recipe": run.row.recipe.as_text()}
            self._content["runs"].setdefault(run.name, {})
        self._write()

    def record(self, run: AblationRun) -> None:
        """Records the SHA-256 of a finished run's metrics.json and history.csv."""
        self._content["runs"][run.name]["files"] = {name: _sha256(run.directory / name) for name in _RECORDS}
        self._write()

    def is_recorded(self, run: AblationRun) -> bool:
        """Returns whether `record` was called for the run."""
        return bool(self._hashes(run))

    def _hashes(self, run):
        return self._content["runs"].get(run.name, {}).get("files") or {}

    def _write(self):
        write_atomically(self._path, json.dumps(self._content, indent=2, ensure_ascii=False) + "\n")

    def state(self, run: AblationRun) -> str:
        """Returns FINISHED, STARTED or PENDING.

        Raises:
            MisuseError: if the run directory contains a run of another recipe, or its records were changed.
        """
        folder = run.directory
        for place in (folder.parent, folder):
            if place.exists() and not place.is_dir():
                raise MisuseError(f"{place} is a file where the ablation needs a directory. Move it away.")
        if not folder.exists():  # deleting the directory requests a new run
            return PENDING
        for name, recorded in self._hashes(run).items():
            if not (folder / name).is_file():
                raise self._changed(run, f"{name} is missing")
            if _sha256(folder / name) != recorded:
                raise self._changed(run, f"{name} differs from the recorded SHA-256")
        flags, metrics = folder / "run.flags", folder / "metrics.json"
        if self.is_recorded(run) and not flags.exists():
            raise self._changed(run, "run.flags is missing")
        if flags.exists():
            self._compare(run, flags, read_flag_lines(flags.read_text(encoding="utf-8", errors="replace")))
        if not metrics.exists():
            return STARTED if flags.exists() else PENDING
        content = self._read_metrics(run, metrics)
        self._compare(run, metrics, content["recipe"])
        complete = content["result"]["epochs"] == run.recipe.epochs and (folder / _LAST_WRITTEN).exists()
        return FINISHED if complete or self.is_recorded(run) else STARTED

    def _read_metrics(self, run, path):
        try:
            metrics = json.loads(path.read_text(encoding="utf-8"))
            dict(metrics["recipe"]), metrics["result"]["epochs"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._changed(run, f"metrics.json cannot be read: {error}") from None
        return metrics

    def _compare(self, run, path, fields):
        differing = differences(fields, run.recipe, self._may_differ())
        if differing:
            raise self._changed(run, f"{path.name} contains another recipe: {'; '.join(differing)}")

    def _changed(self, run, change):
        return MisuseError(
            f"The run directory {run.directory} was changed: {change}. Restore it, choose another --out, or delete "
            "the directory to repeat the run."
        )


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
