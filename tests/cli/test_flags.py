"""Flags: parsing into a recipe, nested flagfiles, help by task, renamed flags, error messages."""

import dataclasses
import re

import pytest

from keras_bot.cli.commands.ablate import read_settings
from keras_bot.cli.flagfiles import expand_flagfiles
from keras_bot.cli.flags import Flags, read_recipe, warn_renamed
from keras_bot.errors import MisuseError
from keras_bot.recipe import TASKS, Recipe


@pytest.fixture(autouse=True)
def new_process():
    """Reports renamed flags again, as a new process does."""
    warn_renamed.cache_clear()


def parse(*argv):
    flags = Flags("train", "usage", recipe=True)
    flags.parse_only_flags(list(argv))
    return flags.recipe()


def test_without_flags_the_recipe_has_its_defaults():
    assert parse() == Recipe()


def test_flags_of_every_type():
    recipe = parse("--model=resnet18_d", "--epochs=7", "--warmup_epochs=0.5", "--zero_gamma", "--noflip")
    assert (recipe.model, recipe.epochs, recipe.warmup_epochs) == ("resnet18_d", 7, 0.5)
    assert recipe.zero_gamma is True and recipe.flip is False
    assert parse("--decay_epochs=3,5").decay_epochs == (3, 5)
    assert parse("--decay_epochs=").decay_epochs == ()
    assert parse("--teacher=t", "--distill_hard_weight=0.5").distill_hard_weight == 0.5


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        Recipe(model="resnet18_c", zero_gamma=True, flip=False, decay_epochs=(), warmup_epochs=2.5),
        Recipe(teacher="a b=c", distill_hard_weight=0.25, dataset="/some where/x.npz", weight_decay=5e-05),
    ],
)
def test_run_flags_reproduce_the_recipe(recipe, tmp_path):
    (tmp_path / "run.flags").write_text("# a header\n" + "\n".join(recipe.flag_lines()))
    assert read_recipe(tmp_path) == recipe
    assert read_recipe(tmp_path, ["--epochs=99"]).epochs == 99


def test_a_tilde_is_the_home_directory_and_a_bool_takes_no_value(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    recipe = parse("--dataset=~/set.npz", "--teacher=~", "--data_dir=a~/b")
    assert (recipe.dataset, recipe.teacher, recipe.data_dir) == ("/home/me/set.npz", "/home/me", "a~/b")
    with pytest.raises(MisuseError, match="--noflip=1 does not take an argument"):
        parse("--noflip=1")


def test_a_nested_flagfile_is_found_in_the_folder_of_the_including_file(tmp_path, monkeypatch):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "base.flags").write_text("--epochs=10\n--batch_size=32\n")
    (tmp_path / "a/mid.flags").write_text("# comment\n\n--flagfile=../base.flags\n--epochs=20\n")
    (tmp_path / "a/b/leaf.flags").write_text("// comment\n--flagfile ../mid.flags\n--seed=1\n".replace(" ../", "=../"))
    monkeypatch.chdir(tmp_path / "a")
    recipe = parse("--flagfile", "b/leaf.flags", "--seed=2")
    assert (recipe.epochs, recipe.batch_size, recipe.seed) == (20, 32, 2)


def test_a_nested_flagfile_is_found_from_the_current_directory_too(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "base.flags").write_text("--epochs=10")
    (tmp_path / "sub/leaf.flags").write_text("--flagfile=base.flags")
    monkeypatch.chdir(tmp_path)
    assert parse("--flagfile=sub/leaf.flags").epochs == 10


def test_nothing_is_expanded_after_two_dashes():
    assert expand_flagfiles(["--", "--flagfile=x"]) == ["--", "--flagfile=x"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--epoch=3", "Unknown flag --epoch. Did you mean --epochs?"),
        ("--qqqqq=3", "Unknown flag --qqqqq. See `keras-bot train --help`"),
        ("--epochs=many", "--epochs must be a whole number, received 'many'"),
        ("--epochs", "Missing value for flag --epochs"),
        ("--zero_gamma=perhaps", "--zero_gamma must be true or false, received 'perhaps'"),
        ("--decay_epochs=1,x", "--decay_epochs must be whole numbers separated by commas, received '1,x'"),
        ("--flagfile=nowhere.flags", "Cannot read the flagfile nowhere.flags: No such file"),
        ("--flagfile", "--flagfile needs the path of a file"),
        ("digits", "Unexpected argument 'digits'. Write flags as --name=value."),
        ("--label_smoothing=2", "label_smoothing must be at least 0 and below 1, received 2"),
    ],
)
def test_a_mistake_is_reported_in_one_line(argument, message):
    with pytest.raises(MisuseError) as error:
        parse(argument)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_flagfile_that_includes_itself_is_refused(tmp_path):
    (tmp_path / "x.flags").write_text("--flagfile=x.flags")
    with pytest.raises(MisuseError, match="includes itself"):
        parse(f"--flagfile={tmp_path / 'x.flags'}")


def test_a_binary_flagfile_is_refused(tmp_path):
    (tmp_path / "x.flags").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MisuseError, match="it is not a text file"):
        parse(f"--flagfile={tmp_path / 'x.flags'}")


def help_of(*argv):
    flags = Flags("train", "usage: keras-bot train", recipe=True)
    flags.parse_only_flags(list(argv))
    return flags.help()


def listed(text):
    """The flags that a help text lists."""
    return set(re.findall(r"(?m)^  --(\w+) ", text))


def test_the_help_lists_the_flags_of_the_task_with_default_and_range():
    names = {field.name for field in dataclasses.fields(Recipe)}
    by_task = {task: listed(help_of("--help=all", f"--task={task}")) for task in TASKS}
    assert set.union(*by_task.values()) == names | {"help"}
    assert listed(help_of("--help=all")) == by_task["classification"]
    heads, classifiers = {"head", "head_channels", "output_stride", "min_zoom", "max_zoom"}, {"teacher", "mixup_alpha"}
    assert not by_task["classification"] & {*heads, "anchor_scale", "base_size", "map_metric"}
    assert (
        by_task["detection"] >= {*heads, "anchor_scale", "map_metric", "task"}
        and "base_size" not in by_task["detection"]
    )
    assert by_task["segmentation"] >= {*heads, "base_size", "layer_decay", "task"}
    assert not (by_task["detection"] | by_task["segmentation"]) & classifiers
    text = help_of("--help=all")
    assert "[120; >=1]" in text and "(5.4)" in text and "[0.9; >=0, <1]" in text
    assert "`--help --task=detection`, `--help --task=segmentation`" in text
    assert "Refinements" in text and "Refinements" not in help_of("--task=detection")
    with pytest.raises(MisuseError, match="Unknown task"):
        help_of("--task=detecion")


def another_value(field):
    """A valid value of a recipe field that is not its default."""
    if field.metadata["choices"]:
        return field.metadata["choices"][-1]
    if field.type is int:
        return field.default + 1
    return {str: "some", bool: not field.default, float: 0.75, float | None: 0.5}.get(field.type, (1, 2))


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_the_help_omits_every_flag_that_the_task_refuses(task):
    from keras_bot.tasks import find_task

    needed = {"distill_hard_weight": {"teacher": "some"}, "teacher_cache": {"teacher": "some"}}
    needed["teacher_top_k"] = {"teacher": "some", "teacher_cache": "some"}
    refused = set()
    for field in dataclasses.fields(Recipe):
        if field.name in ("task", "head"):
            continue
        values = {"dataset": "/no/where", **needed.get(field.name, {}), field.name: another_value(field)}
        with pytest.raises(MisuseError) as error:  # at the latest for the data set
            find_task(task).open_source(Recipe(task=task, **values), "train")
        if "supported" in str(error.value):
            refused.add(field.name)
    assert {"teacher", "mixup_alpha", "label_smoothing", "cache", "augment_on"} <= refused
    assert not refused & listed(help_of("--help=all", f"--task={task}"))


def renamed_lines(capsys):
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    "argv",
    [
        ["--keep=3"],
        ["--keep", "3"],
        ["-keep=3"],
        ["--keep_checkpoints=5", "--keep=3"],
        ["--keep=2", "--keep=3"],
    ],
)
def test_an_old_name_is_accepted_with_one_line(argv, capsys):
    assert parse(*argv) == Recipe(keep_checkpoints=3)
    assert renamed_lines(capsys) == ["keras-bot: --keep is now --keep_checkpoints. The old name will be removed."]
    assert parse("--keep=1", "--keep_checkpoints=4").keep_checkpoints == 4, "the later flag must win"
    assert renamed_lines(capsys) == [], "one line per process"


def test_all_old_names_are_accepted_and_passed_on_under_the_new_ones(capsys):
    flags = Flags("evaluate", "usage", recipe=True)
    flags.parse_only_flags(["--accumulate=2", "--jit=off", "--clip_norm=5", "--map_form=coco", "--shard=file"])
    new = [
        "--global_clipnorm=5.0",
        "--map_metric=coco",
        "--accumulation_steps=2",
        "--shard_by=file",
        "--jit_compile=off",
    ]
    assert flags.recipe_arguments() == new
    assert flags.explicit_fields() == {flag[2:].split("=")[0] for flag in new}
    assert len(renamed_lines(capsys)) == 5
    with pytest.raises(MisuseError, match="--keep_checkpoints must be a whole number, received 'x'"):
        parse("--keep=x")
    with pytest.raises(MisuseError, match="Unknown flag --accumulat") as error:
        parse("--accumulat=1")
    assert "--accumulation_steps" in str(error.value) and "--accumulate" not in str(error.value)


def test_old_names_in_a_flagfile_are_reported_and_in_a_run_flags_replaced_silently(tmp_path, capsys):
    file = tmp_path / "own.flags"
    file.write_text("--keep=3\n--jit=off\n")
    recipe = Recipe(keep_checkpoints=3, jit_compile="off")
    assert parse(f"--flagfile={file}") == recipe and len(renamed_lines(capsys)) == 2
    warn_renamed.cache_clear()
    (tmp_path / "run.flags").write_text(f"# keras_bot 0.1.0: a run\n{file.read_text()}")
    assert parse(f"--flagfile={tmp_path}/run.flags") == read_recipe(tmp_path) == recipe
    assert renamed_lines(capsys) == []
    assert parse(f"--flagfile={tmp_path}/run.flags", "--keep=7").keep_checkpoints == 7
    assert len(renamed_lines(capsys)) == 1


def test_old_names_in_set_are_accepted_with_one_line(capsys):
    assert read_settings("keep=3,decay_epochs=3,6") == {"keep_checkpoints": "3", "decay_epochs": "3,6"}
    (line,) = renamed_lines(capsys)
    assert line == "keras-bot: --set=keep is now --set=keep_checkpoints. The old name will be removed."
    with pytest.raises(MisuseError, match="--set contains keep_checkpoints twice"):
        read_settings("keep=3,keep_checkpoints=3")
    with pytest.raises(MisuseError, match="received 'keep'"):
        read_settings("dataset=x,keep")


def test_a_command_may_have_old_names_of_its_own(capsys):
    flags = Flags("bench model", "usage")
    flags.add(bool, "jit_compile", False, "compile", old_name="jit")
    flags.parse_only_flags(["--jit", "--nojit", "--jit"])
    assert flags.jit_compile is True and listed(flags.help()) == {"help", "jit_compile"}
    assert renamed_lines(capsys) == ["keras-bot: --jit is now --jit_compile. The old name will be removed."]
