"""`keras-bot ablate`: several recipes over several seeds, each run in its own process, with a results table."""

import collections
import dataclasses
import glob
import os
import pathlib
import re
import sys

from keras_bot.cli.flags import Flags, check_writable, expand_flagfiles
from keras_bot.cli.stderr import start_backend
from keras_bot.errors import MisuseError, RunError, expect_at_least_one, unknown
from keras_bot.recipe import MOST_SEED, RENAMED, Recipe

USAGE = (
    "usage: keras-bot ablate --recipes='flags/cifar/table6/*.flags' --seeds=0,1,2 --out=DIR "
    "[--set=dataset=FILE.npz,epochs=30]"
)
# Command of the process that validates recipes, so that this process never starts a backend.
CHECKER = (sys.executable, "-c", "from keras_bot.cli.commands.ablate import answer; answer()")


def main(argv):
    """Trains the runs that are not done yet and prints the table."""
    flags = Flags("ablate", USAGE)
    flags.add(str, "recipes", "", "flagfiles in the table's order, with commas; patterns as 'DIR/*.flags' too, sorted")
    flags.add(str, "seeds", "0", "in place of the recipes' own, with commas: intervals need at least two, better three")
    flags.add(str, "set", "", "knobs for all recipes, as dataset=FILE.npz,epochs=30,decay_epochs=8,15,22")
    flags.add(str, "out", "", "directory of runs, tables and pictures; the same command goes on with what it holds")
    flags.add(
        str,
        "mode",
        "cumulative",
        "cumulative: each row is compared with the row above; leave_one_out: of a single recipe, without each trick",
    )
    flags.add(str, "metric", "", "of the table; empty is the task's first: top1, map or mean_iou")
    flags.add(int, "workers", 1, "runs at a time; on a GPU each wants all of its memory")
    flags.add(bool, "dry_run", False, "list the runs, done, begun and left, and train nothing")
    flags.expect_no_arguments(argv)
    if flags.help_wanted():
        return
    _refuse_two_sets(argv)
    ablation = read_ablation(flags)

    from keras_bot.ablation import tables
    from keras_bot.ablation.driver import ablate, look
    from keras_bot.ablation.rows import TABLES

    if flags.dry_run:
        print(_plan(look(ablation)[1]))
        return
    summary = ablate(ablation, workers=flags.workers, tell=lambda line: print(line, flush=True))
    written = [name for name in TABLES if (ablation.out / name).exists()]
    print(f"\n{tables.as_markdown(summary)}\n{ablation.out}: {', '.join(written)}")
    _raise_for_failures(summary)


def _raise_for_failures(summary):
    failed = [(row["name"], seed, why) for row in summary["rows"] for seed, why in row["failed"].items()]
    if failed:
        name, seed, why = failed[0]
        raise RunError(
            f"{len(failed)} of {len(summary['rows']) * len(summary['seeds'])} runs failed, "
            f"first {name} with seed {seed}: {why}. "
            "The same command tries them again; delete a run's directory to begin it anew."
        )


def read_ablation(flags: Flags):
    """Returns the `Ablation` that the flags describe. Raises MisuseError if they are invalid."""
    from keras_bot.ablation.driver import Ablation
    from keras_bot.ablation.rows import make_rows

    if not flags.out:
        raise MisuseError("Expected --out, a directory for the runs and tables, received none.")
    expect_at_least_one(workers=flags.workers)
    seeds = read_seeds(flags.seeds)
    settings = [f"--{name}={value}" for name, value in read_settings(flags.set).items()]
    recipes = {file: read_file(file, settings) for file in find_files(flags.recipes)}
    for file, recipe in recipes.items():
        check_writable(recipe, out=flags.out, recipes=file)
    rows = make_rows(recipes, flags.mode)
    return Ablation(pathlib.Path(flags.out).expanduser(), rows, seeds, flags.mode, flags.metric, checker=CHECKER)


def find_files(given: str) -> list[str]:
    """Returns the recipe files for comma-separated names and patterns, in order; a pattern's matches are sorted.

    Raises:
        MisuseError: if no file is given, a pattern matches nothing, or a file is given twice.
    """
    files = []
    for part in filter(None, (part.strip() for part in given.split(","))):
        path = str(pathlib.Path(part).expanduser())
        if pathlib.Path(path).exists() or not glob.has_magic(path):
            files.append(path)
            continue
        found = sorted(file for file in glob.glob(_literal_folders(path), recursive=True) if os.path.isfile(file))
        if not found:
            raise MisuseError(f"Expected recipes that match {part}, found none. Mind the current directory.")
        files += found
    if not files:
        raise MisuseError("Expected --recipes, flagfiles with commas or a pattern, received none.")
    doubled = [file for file, count in collections.Counter(files).items() if count > 1]
    if doubled:
        raise MisuseError(f"Expected each recipe once, received {doubled[0]} twice. Drop one.")
    return files


def _literal_folders(pattern):
    """Escapes the leading folders of a pattern that exist literally, such as `a[1]` in `a[1]/*.flags`."""
    parts = pathlib.Path(pattern).parts
    count = next(n for n in range(len(parts) - 1, -1, -1) if n == 0 or pathlib.Path(*parts[:n]).is_dir())
    return str(pathlib.Path(*map(glob.escape, parts[:count]), *parts[count:]))


def read_file(file: str, settings: list[str]) -> Recipe:
    """Returns the recipe in a flagfile, overridden by `settings`. Raises MisuseError, which names the file."""
    flags = Flags("train", "", recipe=True)
    try:
        lines = expand_flagfiles([f"--flagfile={file}"])
        own = {line.partition("=")[0].lstrip("-") for line in lines} & {"run_dir", "resume", "overwrite", "dry_run"}
        if own:
            raise MisuseError(f"Expected no --{min(own)}, which is for a single training. Take the line out.")
        flags.expect_no_arguments([*lines, *settings])
        return flags.recipe()
    except MisuseError as error:
        raise MisuseError(f"{file}: {error}") from None


def read_seeds(given: str) -> list[int]:
    """Returns the seeds in order. Raises MisuseError if there are none, duplicates, or values Keras does not accept."""
    parts = [part.strip() for part in given.split(",")]
    seeds = [int(part) for part in parts if re.fullmatch(r"[0-9]+", part)]
    if len(seeds) < len(parts) or max(seeds) > MOST_SEED:
        raise MisuseError(f"Expected --seeds as whole numbers, 0 to {MOST_SEED}, with commas, received {given!r}.")
    if len(set(seeds)) < len(seeds):
        raise MisuseError(f"Expected each seed once in --seeds, received {given}.")
    return seeds


def read_settings(given: str) -> dict[str, str]:
    """Returns the values in --set by field name. A part without = continues the value before it: `decay_epochs=3,6`.

    Raises:
        MisuseError: if a part is not NAME=VALUE, or a field is unknown, given twice, or the seed.
    """
    kinds = {field.name: field.type for field in dataclasses.fields(Recipe)}
    settings = {}
    for part in given.split(",") if given else ():
        name, is_setting, value = part.partition("=")
        if is_setting and re.fullmatch(r"\s*\w+\s*", name):
            name = RENAMED.get(name.strip(), name.strip())
            if name not in kinds:
                raise unknown("knob in --set", name, kinds.keys() - {"seed"})
            if name == "seed":
                raise MisuseError("Expected no seed in --set, received one. Give --seeds.")
            if name in settings:
                raise MisuseError(f"Expected {name} once in --set, received it twice. Drop one.")
            settings[name] = value
            continue
        last = next(reversed(settings), None)
        if kinds.get(last) not in (tuple[int, ...], str) or part.strip() in kinds:
            raise MisuseError(f"Expected NAME=VALUE with commas in --set, received {part!r}.")
        settings[last] += f",{part}"
    return settings


def answer():
    """Runs the process in which `report.checking` validates the recipes."""
    from keras_bot.ablation import validate as checking

    checking.answer(start_backend)


def _refuse_two_sets(argv):
    """Raises MisuseError for more than one --set: all but the last would be ignored."""
    count = sum(argument.startswith("-") and argument.lstrip("-").partition("=")[0] == "set" for argument in argv)
    if count > 1:
        raise MisuseError(f"Expected one --set with all its settings, received {count}. Join them with commas.")


def _plan(states) -> str:
    counts = collections.Counter(states.values())
    lines = [f"{state:<6}{run.directory}  {run.row.file}" for run, state in states.items()]
    told = ", ".join(f"{counts[state]} {state}" for state in ("done", "begun", "left"))
    return "\n".join([*lines, f"{len(states)} run{'s' * (len(states) > 1)}: {told}"])
