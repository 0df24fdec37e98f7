"""`--help`: examples first, short enough to read, complete with `--help=all`."""

import dataclasses
import importlib
import pathlib
import re
import shlex
import shutil

import pytest
from processes import expect_misuse, run_command

from keras_bot.cli.commands import COMMANDS, SUBCOMMANDS, evaluate
from keras_bot.cli.flags import Flags
from keras_bot.recipe import TASKS, Recipe

ROOT = pathlib.Path(__file__).parents[2]
HELPS = [*COMMANDS, *SUBCOMMANDS]
TRAINING = ["train", "finetune", "bench refinements", "bench pipelines"]
READING = ["evaluate", "report", "data"]  # their short help lists only the recipe fields that affect them
FIELDS = {field.name: field.metadata for field in dataclasses.fields(Recipe)}


def examples_of(command: str) -> list[str]:
    """Returns the examples in the module of a command or subcommand."""
    name, _, part = command.partition(" ")
    module = importlib.import_module(f"keras_bot.cli.commands.{name.replace('-', '_')}")
    if name == "bench":
        return [module.EXAMPLES[part]] if part else list(module.EXAMPLES.values())
    return list(module.CONVERT_EXAMPLES if part == "convert" else module.EXAMPLES)


def arguments_of(example: str) -> list[str]:
    """Returns the arguments of an example, without its comment."""
    program, *arguments = shlex.split(example, comments=True)
    assert program == "keras-bot"
    return arguments


EXAMPLES = list(dict.fromkeys(example for command in HELPS for example in examples_of(command)))


def help_of(command: str, *flags: str) -> str:
    return run_command(*command.split(), *(flags or ["--help"])).out


def listed(text: str) -> set[str]:
    """Returns the flags that a help lists."""
    return set(re.findall(r"(?m)^  --(\w+) ", text))


@pytest.mark.parametrize("command", HELPS)
def test_the_help_starts_with_examples_usage_and_summary(command):
    examples, usage, summary, *_ = help_of(command).split("\n\n")
    assert re.match(r"Examples?:\n", examples) and examples_of(command)
    assert [line.strip() for line in examples.splitlines()[1:]] == examples_of(command)
    assert usage.startswith(f"usage: keras-bot {command}")
    start = {**COMMANDS, **SUBCOMMANDS}[command]
    assert " ".join(summary.split()).startswith(f"{start[0].upper()}{start[1:]}.")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("command", HELPS)
def test_the_help_fits_two_screens(command, task):
    has_recipe = command in (*TRAINING, *READING)
    lines = help_of(command, "--help", *([f"--task={task}"] if has_recipe else [])).splitlines()
    assert len(lines) <= 80 and max(map(len, lines)) <= 110


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_parses(example, monkeypatch):
    monkeypatch.chdir(ROOT)
    command, *arguments = arguments_of(example)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    flags, launched = arguments[:end], arguments[end + 1 :]
    assert example in run_command(command, *flags, "--help").out
    if launched:
        run_command(*launched, "--help")
    if command in ("train", "finetune"):
        parser = Flags(command, "", recipe=True)
        parser.parse_only_flags([flag for flag in flags if not flag.startswith("--run_dir")])
        assert parser.recipe() != Recipe()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("command", [*TRAINING, *READING])
def test_help_all_lists_every_field_of_the_task(command, task):
    fields = {name for name, metadata in FIELDS.items() if task in (metadata["tasks"] or TASKS)}
    everything, short = (help_of(command, flag, f"--task={task}") for flag in ("--help=all", "--help"))
    assert listed(everything) >= fields and "more flags" not in everything
    hidden = listed(everything) - listed(short)
    assert short.splitlines()[-1].startswith(f"{len(hidden)} more flags")
    if command in TRAINING:
        assert hidden == {name for name in fields if FIELDS[name]["advanced"]}


def test_common_fields_are_in_the_short_help():
    assert listed(help_of("train")) >= {"model", "dataset", "init_from", "mixup_off_epochs", "batch_size"}


@pytest.mark.parametrize("command", READING)
def test_the_help_omits_fields_without_effect(command):
    text = help_of(command)
    assert not listed(text) & {"learning_rate", "epochs", "model", "teacher", "jit_compile"}
    assert re.search(rf"\d+ more flags that have no effect here: keras-bot {command} --help=all$", text.strip())
    assert ("Flags for other tasks" in text) == (command == "evaluate")


def test_evaluate_reads_only_the_fields_in_its_help(run_dir, monkeypatch):
    used, read_recipe = set(), evaluate.read_recipe

    class Recorder:
        def __init__(self, recipe):
            self.recipe = recipe

        def __getattr__(self, name):
            used.add(name)
            return getattr(self.recipe, name)

    monkeypatch.setattr(evaluate, "read_recipe", lambda *arguments: Recorder(read_recipe(*arguments)))
    run_command("evaluate", f"--run_dir={run_dir}")
    assert {"dataset", "image_size", "eval_crop"} < used <= listed(help_of("evaluate"))


def test_help_accepts_no_value_and_all():
    assert help_of("train", "-h") == help_of("train", "-help") == help_of("train") != help_of("train", "--help=all")
    assert help_of("models", "--help=all") == help_of("models", "-h") == help_of("models")
    assert help_of("bench", "-h") == help_of("bench", "--help=all") == help_of("bench")
    assert help_of("launch", "--help", "--", "train", "-h") == help_of("launch")


@pytest.mark.parametrize("command", ["train", "models", "bench", "bench model", "data convert"])
@pytest.mark.parametrize(("flag", "value"), [("--help=short", "short"), ("--help=", ""), ("--nohelp", "false")])
def test_another_value_of_help_is_misuse(command, flag, value):
    line = expect_misuse(*command.split(), flag)
    assert line == (
        f"keras-bot: --help must be `--help` or `--help=all`, received {value!r}. See `keras-bot {command} --help`."
    )


def test_help_with_a_command_prints_its_help():
    for command in ("train", "bench model", "launch"):
        assert run_command("help", *command.split()).out == help_of(command)
    assert run_command("help", "launch", "--", "train").out == help_of("launch")
    assert run_command("help", "train", "--task=detection").out == help_of("train", "--help", "--task=detection")
    assert run_command("help", "--help").out == run_command("help").out == run_command("-h").out
    assert "Unknown command 'trian'. Did you mean train?" in expect_misuse("help", "trian")


@pytest.mark.thorough
def test_the_examples_that_need_only_the_repository_run(tmp_path, monkeypatch):
    """The ones that take seconds, in the order in which they use each other's files."""
    for name in ("flags", "savedmodels/digits"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for command in ("data", "train", "evaluate", "report", "export", "inspect", "finetune"):
        run_command(*arguments_of(examples_of(command)[0]))
    run_command(*arguments_of(examples_of("models")[-1]))
    written = ("digits.png", "runs/quickstart/model.keras", "report.html", "savedmodels/mine/saved_model.pb")
    assert all((tmp_path / name).is_file() for name in written)


def test_the_ablation_of_the_example_is_valid(tmp_path, monkeypatch):
    (tmp_path / "flags").symlink_to(ROOT / "flags")
    monkeypatch.chdir(tmp_path)
    planned = run_command(*arguments_of(examples_of("ablate")[0]), "--dry_run").out
    assert "runs: 0 finished, 0 started" in planned
