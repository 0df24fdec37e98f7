"""Rows of an ablation: name, recipe and the paper's result."""

import collections
import dataclasses
import pathlib
import re

from keras_bot.ablation.tricks_off import without_each_trick
from keras_bot.errors import MisuseError, unknown
from keras_bot.recipe import Recipe
from keras_bot.training.curves import LABELS

MODES = ("cumulative", "leave_one_out")
LEDGER = "ablation.json"
TABLES = ("table.json", "table.csv", "table.md", "table.png", "curves.png")
OWN_FILES = (LEDGER, *TABLES)


@dataclasses.dataclass(frozen=True)
class Row:
    """One recipe, trained once per seed.

    Attributes:
        name: also the name of its directory.
        file: path of the recipe file, as given.
        recipe: the recipe to train, with seed 0; `with_seed` sets the seed of a run.
        paper: the paper's results in percent, by metric; the key is "" if the file doesn't name the metric.
    """

    name: str
    file: str
    recipe: Recipe
    paper: dict[str, float] = dataclasses.field(default_factory=dict, compare=False)

    def with_seed(self, seed: int) -> Recipe:
        """Returns the recipe with a seed. Batches depend on the seed, so each seed has its own teacher cache."""
        cache = self.recipe.teacher_cache and str(pathlib.Path(self.recipe.teacher_cache) / f"seed{seed}")
        return dataclasses.replace(self.recipe, seed=seed, teacher_cache=cache)


def make_rows(recipes: dict[str, Recipe], mode: str) -> list[Row]:
    """Builds the rows of an ablation, starting with the reference row or the bottom of the stack.

    Args:
        recipes: recipes by file, in order.
        mode: "cumulative", one row per recipe, each compared with the row above; or "leave_one_out", a single recipe,
            then the recipe without each of its tricks, compared with the full one.

    Raises:
        MisuseError: for an unknown mode, no recipe or too many, identical recipes, or several tasks.
    """
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    if not recipes:
        raise MisuseError("Expected at least one recipe, received none. Give --recipes=FILE,FILE,… or a pattern.")
    rows = [
        Row(name, file, dataclasses.replace(recipe, seed=0), read_paper(file))
        for name, (file, recipe) in zip(name_files(list(recipes)), recipes.items(), strict=True)
    ]
    if mode == "leave_one_out":
        if len(rows) > 1:
            raise MisuseError(f"Expected one recipe with --mode=leave_one_out, the full one; received {len(rows)}.")
        without = without_each_trick(rows[0].recipe).items()
        rows += [Row(f"without_{trick}", rows[0].file, recipe) for trick, recipe in without]
    _refuse_doubles(rows)
    _refuse_several_tasks(rows)
    return rows


def name_files(files: list[str]) -> list[str]:
    """Returns a unique name for each file: its stem, with parent folders where needed.

    Raises:
        MisuseError: if the names aren't unique, a file is given twice, or a stem is reserved or starts with a dot.
    """
    paths = [pathlib.Path(file).resolve() for file in files]
    for path, file in zip(paths, files, strict=True):
        if paths.count(path) > 1:
            same = [other for other, its_path in zip(files, paths, strict=True) if its_path == path]
            raise MisuseError(f"Expected each recipe once, received {' and '.join(same)}, one file. Drop one.")
        if path.stem.startswith(".") or path.stem in OWN_FILES:
            raise MisuseError(
                "Expected recipes whose names neither begin with a dot nor are those of an ablation's own files, "
                f"received {file}. Rename it."
            )
    parts = [(*path.parent.parts[1:], path.stem) for path in paths]
    kept = [1] * len(files)
    while True:
        names = ["_".join(part[-count:]) for part, count in zip(parts, kept, strict=True)]
        doubled = {name for name, count in collections.Counter(names).items() if count > 1}
        if not doubled:
            return names
        longer = [min(k + (name in doubled), len(part)) for k, name, part in zip(kept, names, parts, strict=True)]
        if longer == kept:
            raise MisuseError(f"Can't tell by their names the recipes called {doubled.pop()}. Rename one.")
        kept = longer


def read_paper(file: str) -> dict[str, float]:
    """Reads the paper's results from the header of a recipe file, in percent, by metric.

    `# Paper: 76.03 / 92.81 top-1 / top-5 %, …` gives {"top1": 76.03, "top5": 92.81}; no such line gives {}.
    """
    text = pathlib.Path(file).expanduser().read_text(encoding="utf-8")
    told = re.search(r"^# Paper:\s*(\d[\d.]*(?: / \d[\d.]*)*)\s*([^,(%]*)", text, re.MULTILINE)
    if not told:
        return {}
    figures = [float(figure) for figure in told[1].rstrip(".").split(" / ")]
    names = [name.strip() for name in told[2].split(" / ")]
    metrics = {name: metric for metric, name in LABELS.items()} | {"": ""}
    return {metrics[name]: figure for name, figure in zip(names, figures, strict=False) if name in metrics}


def _refuse_doubles(rows):
    seen = {}
    for row in rows:
        other = seen.setdefault(str(row.recipe.as_text()), row)
        if other is not row:
            raise MisuseError(
                f"Expected recipes that differ, received {other.file} and {row.file}, whose settings are the same "
                "(with what --set gives; their own seeds don't count). Drop one."
            )


def _refuse_several_tasks(rows):
    for knob in ("task", "map_metric"):
        given = {}
        for row in rows:
            given.setdefault(getattr(row.recipe, knob), row.file)
        if len(given) > 1 and (knob == "task" or rows[0].recipe.task == "detection"):
            told = ", ".join(f"{value} in {file}" for value, file in given.items())
            raise MisuseError(f"Expected the same {knob} in all recipes, received {told}. Ablate them apart.")
