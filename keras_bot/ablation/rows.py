"""Rows of an ablation: name, recipe and the paper's result."""

import collections
import dataclasses
import pathlib
import re

from keras_bot.bag import without_each_trick
from keras_bot.errors import MisuseError, unknown
from keras_bot.recipe import Recipe
from keras_bot.training.curves import METRIC_LABELS

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
    """Builds the rows of an ablation; the first is the baseline or, for "leave_one_out", the full recipe.

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
        raise MisuseError("No recipe was given. Pass --recipes=FILE,FILE,… or a pattern.")
    rows = [
        Row(name, file, dataclasses.replace(recipe, seed=0), read_paper(file))
        for name, (file, recipe) in zip(name_files(list(recipes)), recipes.items(), strict=True)
    ]
    if mode == "leave_one_out":
        if len(rows) > 1:
            raise MisuseError(f"--mode=leave_one_out needs a single recipe, the full one, but received {len(rows)}.")
        without = without_each_trick(rows[0].recipe).items()
        rows += [Row(f"without_{trick}", rows[0].file, recipe) for trick, recipe in without]
    _check_different(rows)
    _check_same_task(rows)
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
            raise MisuseError(f"{' and '.join(same)} are the same file. Remove one from --recipes.")
        if path.stem.startswith(".") or path.stem in OWN_FILES:
            raise MisuseError(
                f"The name of {file} begins with a dot or is the name of one of the ablation's own files. Rename it."
            )
    parts = [(*path.parent.parts[1:], path.stem) for path in paths]
    lengths = [1] * len(files)
    while True:
        names = ["_".join(part[-length:]) for part, length in zip(parts, lengths, strict=True)]
        repeated = {name for name, count in collections.Counter(names).items() if count > 1}
        if not repeated:
            return names
        longer = [min(k + (name in repeated), len(part)) for k, name, part in zip(lengths, names, parts, strict=True)]
        if longer == lengths:
            raise MisuseError(f"Several recipes would have the row name {repeated.pop()!r}. Rename one.")
        lengths = longer


def read_paper(file: str) -> dict[str, float]:
    """Reads the paper's results from the header of a recipe file, in percent, by metric.

    `# Paper: 76.03 / 92.81 top-1 / top-5 %, …` gives {"top1": 76.03, "top5": 92.81}; no such line gives {}.
    """
    text = pathlib.Path(file).expanduser().read_text(encoding="utf-8")
    match = re.search(r"^# Paper:\s*(\d[\d.]*(?: / \d[\d.]*)*)\s*([^,(%]*)", text, re.MULTILINE)
    if not match:
        return {}
    values = [float(value) for value in match[1].rstrip(".").split(" / ")]
    labels = [label.strip() for label in match[2].split(" / ")]
    metrics = {label: metric for metric, label in METRIC_LABELS.items()} | {"": ""}
    return {metrics[label]: value for label, value in zip(labels, values, strict=False) if label in metrics}


def _check_different(rows):
    """Raises MisuseError if two rows have the same recipe."""
    first_rows: dict[str, Row] = {}
    for row in rows:
        other = first_rows.setdefault(str(row.recipe.as_text()), row)
        if other is not row:
            raise MisuseError(
                f"{other.file} and {row.file} have the same settings (after --set; the seed does not count). "
                "Remove one from --recipes."
            )


def _check_same_task(rows):
    """Raises MisuseError unless all rows can be compared by the same metric."""
    for field in ("task", "map_metric"):
        files: dict[str, str] = {}
        for row in rows:
            files.setdefault(getattr(row.recipe, field), row.file)
        if len(files) > 1 and (field == "task" or rows[0].recipe.task == "detection"):
            values = ", ".join(f"{value} in {file}" for value, file in files.items())
            raise MisuseError(f"All recipes must have the same {field}, received {values}. Ablate them separately.")
