"""`keras-bot ablate`: several recipes over several seeds, each run in its own process, with a results table."""

import collections
import dataclasses
import glob
import os
import pathlib
import re
import sys
from typing import Any

from keras_bot.cli.backend import start_backend
from keras_bot.cli.flagfiles import expand_flagfiles
from keras_bot.cli.flags import Flags, check_writable, warn_renamed
from keras_bot.errors import MisuseError, RunError, expect_at_least_one, unknown
from keras_bot.recipe import MAX_SEED, RENAMED, Recipe

USAGE = "usage: keras-bot ablate --recipes=FILE[,FILE …] --out=DIR [--seeds=0,1,2] [--set=NAME=VALUE,…]"
EXAMPLES = (
    "keras-bot ablate --recipes=flags/quickstart.flags --mode=leave_one_out --seeds=0,1,2 --out=runs/tricks",
    "keras-bot ablate --recipes='flags/cifar/table4/*.flags' --set=dataset=path/to/cifar10.npz --out=runs/table4",
)
# Command of the process that validates recipes, so that this process never starts a backend.
CHECKER = (sys.executable, "-c", "from keras_bot.cli.commands.ablate import run_checker; run_checker()")


def main(argv: list[str]) -> None:
    """Trains the runs that are not finished yet and prints the table."""
    flags = Flags("ablate", USAGE, EXAMPLES)
    _add_flags(flags)
    flags.parse_only_flags(argv)
    if flags.handle_help():
        return
    _check_single_set(argv)
    ablation = read_ablation(flags)

    from keras_bot.ablation import tables
    from keras_bot.ablation.driver import ablate, check_ablation
    from keras_bot.ablation.rows import TABLES

    if flags.dry_run:
        print(_plan(check_ablation(ablation)[1]))
        return
    summary = ablate(ablation, workers=flags.workers, log=lambda line: print(line, flush=True))
    written = [name for name in TABLES if (ablation.out / name).exists()]
    print(f"\n{tables.as_markdown(summary)}\n{ablation.out}: {', '.join(written)}")
    _raise_for_failures(summary)


def _add_flags(flags):
    help = "flagfiles in the order of the table, separated by commas; a pattern such as 'DIR/*.flags' is sorted by name"
    flags.add(str, "recipes", "", help)
    help = "seeds for every recipe, separated by commas; confidence intervals need at least two, better three"
    flags.add(str, "seeds", "0", help)
    flags.add(str, "set", "", "fields to override in all recipes: dataset=FILE.npz,epochs=30,decay_epochs=8,15,22")
    help = "directory for the runs, tables and plots; the same command continues an unfinished ablation"
    flags.add(str, "out", "", help)
    help = (
        "cumulative: each recipe compared with the one above; leave_one_out: one recipe and the same without each trick"
    )
    flags.add(str, "mode", "cumulative", help)
    flags.add(str, "metric", "", "metric of the table; empty uses the first of the task: top1, map or mean_iou")
    flags.add(int, "workers", 1, "number of runs in parallel; on a GPU, each takes all of its memory")
    flags.add(bool, "dry_run", False, "list the finished, started and pending runs without training")


def _raise_for_failures(summary):
    failed = [(row["name"], seed, reason) for row in summary["rows"] for seed, reason in row["failed"].items()]
    if failed:
        name, seed, reason = failed[0]
        raise RunError(
            f"{len(failed)} of {len(summary['rows']) * len(summary['seeds'])} runs failed, "
            f"the first is {name} with seed {seed}: {reason}. "
            "Repeat the command to retry them; delete a run's directory to start it from the beginning."
        )


def read_ablation(flags: Flags) -> Any:
    """Returns the `Ablation` that the flags describe. Raises MisuseError if they are invalid."""
    from keras_bot.ablation.driver import Ablation
    from keras_bot.ablation.rows import make_rows

    if not flags.out:
        raise MisuseError("--out is required: a directory for the runs and tables.")
    expect_at_least_one(workers=flags.workers)
    seeds = read_seeds(flags.seeds)
    settings = [f"--{name}={value}" for name, value in read_settings(flags.set).items()]
    recipes = {file: read_file(file, settings) for file in find_files(flags.recipes)}
    for file, recipe in recipes.items():
        check_writable(recipe, out=flags.out, recipes=file)
    rows = make_rows(recipes, flags.mode)
    return Ablation(pathlib.Path(flags.out).expanduser(), rows, seeds, flags.mode, flags.metric, check_command=CHECKER)


def find_files(recipes: str) -> list[str]:
    """Returns the recipe files of comma-separated paths and patterns, in order; the matches of a pattern are sorted.

    Raises:
        MisuseError: if there is no file, a pattern matches nothing, or a file occurs twice.
    """
    files = []
    for part in filter(None, (part.strip() for part in recipes.split(","))):
        path = str(pathlib.Path(part).expanduser())
        if pathlib.Path(path).exists() or not glob.has_magic(path):
            files.append(path)
            continue
        found = sorted(file for file in glob.glob(_literal_folders(path), recursive=True) if os.path.isfile(file))
        if not found:
            raise MisuseError(f"No recipe matches {part}. Patterns are relative to the current directory.")
        files += found
    if not files:
        raise MisuseError("--recipes is required: flagfiles separated by commas, or a pattern.")
    repeated = [file for file, count in collections.Counter(files).items() if count > 1]
    if repeated:
        raise MisuseError(f"--recipes contains {repeated[0]} twice. Remove one.")
    return files


def _literal_folders(pattern):
    """Escapes wildcards in the leading folders of a pattern that exist, such as `a[1]` in `a[1]/*.flags`."""
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
            raise MisuseError(f"--{min(own)} is not allowed in a recipe of an ablation. Remove the line.")
        flags.parse_only_flags([*lines, *settings])
        return flags.recipe()
    except MisuseError as error:
        raise MisuseError(f"{file}: {error}") from None


def read_seeds(text: str) -> list[int]:
    """Parses comma-separated seeds. Raises MisuseError for none, duplicates and values that Keras does not accept."""
    parts = [part.strip() for part in text.split(",")]
    seeds = [int(part) for part in parts if re.fullmatch(r"[0-9]+", part)]
    if len(seeds) < len(parts) or max(seeds) > MAX_SEED:
        raise MisuseError(
            f"--seeds must be whole numbers from 0 to {MAX_SEED}, separated by commas, received {text!r}."
        )
    if len(set(seeds)) < len(seeds):
        raise MisuseError(f"--seeds={text} contains a seed twice. Remove one.")
    return seeds


def read_settings(text: str) -> dict[str, str]:
    """Parses --set into values by field name. A part without = continues the value before it: `decay_epochs=3,6`.

    Raises:
        MisuseError: if a part is not NAME=VALUE, or a field is unknown, occurs twice or is the seed.
    """
    kinds: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(Recipe)}
    settings: dict[str, str] = {}
    for part in text.split(",") if text else ():
        name, is_setting, value = part.partition("=")
        if is_setting and re.fullmatch(r"\s*\w+\s*", name):
            name = _current_name(name.strip())
            if name not in kinds:
                raise unknown("--set field", name, kinds.keys() - {"seed"})
            if name == "seed":
                raise MisuseError("--set does not accept seed. Use --seeds.")
            if name in settings:
                raise MisuseError(f"--set contains {name} twice. Remove one.")
            settings[name] = value
            continue
        last = next(reversed(settings), "")
        if kinds.get(last) not in (tuple[int, ...], str) or part.strip() in kinds.keys() | RENAMED.keys():
            raise MisuseError(f"--set must be NAME=VALUE,NAME=VALUE,…, received {part!r}.")
        settings[last] += f",{part}"
    return settings


def _current_name(name):
    """Returns the current name of a field; prints a line to stderr if `name` is its old one."""
    if name in RENAMED:
        warn_renamed(f"--set={name}", f"--set={RENAMED[name]}")
    return RENAMED.get(name, name)


def run_checker() -> None:
    """Runs the process that validates recipes, see `keras_bot/ablation/validate.py`."""
    from keras_bot.ablation.validate import serve_check

    serve_check(start_backend)


def _check_single_set(argv):
    """Raises MisuseError for more than one --set: all but the last would be ignored."""
    count = sum(argument.startswith("-") and argument.lstrip("-").partition("=")[0] == "set" for argument in argv)
    if count > 1:
        raise MisuseError(f"--set was passed {count} times. Pass it once, with the settings separated by commas.")


def _plan(states) -> str:
    """Lists the runs with their states, and the number of runs in each state."""
    counts = collections.Counter(states.values())
    lines = [f"{state:<10}{run.directory}  {run.row.file}" for run, state in states.items()]
    summary = ", ".join(f"{counts[state]} {state}" for state in ("finished", "started", "pending"))
    return "\n".join([*lines, f"{len(states)} run{'s' * (len(states) > 1)}: {summary}"])
