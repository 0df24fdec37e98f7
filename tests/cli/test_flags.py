"""Flags make the recipe; flagfiles nest beside each other; a mistake is one clear line."""

import pytest

from keras_bot.cli.flags import Flags, expand_flagfiles, read_recipe
from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe


def parse(*argv):
    flags = Flags("train", "usage", recipe=True)
    flags.expect_no_arguments(list(argv))
    return flags.recipe()


def test_no_flags_are_the_defaults():
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
def test_run_flags_give_the_recipe_back(recipe, tmp_path):
    (tmp_path / "run.flags").write_text("# a header\n" + "\n".join(recipe.flag_lines()))
    assert read_recipe(tmp_path) == recipe
    assert read_recipe(tmp_path, ["--epochs=99"]).epochs == 99


def test_a_tilde_is_the_home_directory_and_a_bool_takes_no_value(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    recipe = parse("--dataset=~/set.npz", "--teacher=~", "--data_dir=a~/b")
    assert (recipe.dataset, recipe.teacher, recipe.data_dir) == ("/home/me/set.npz", "/home/me", "a~/b")
    with pytest.raises(MisuseError, match="--noflip=1 does not take an argument"):
        parse("--noflip=1")


def test_a_nested_flagfile_is_found_beside_the_file_that_names_it(tmp_path, monkeypatch):
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
        ("--qqqqq=3", "Unknown flag --qqqqq. `keras-bot train --help`"),
        ("--epochs=many", "Expected --epochs as a whole number, received 'many'"),
        ("--epochs", "Missing value for flag --epochs"),
        ("--zero_gamma=perhaps", "Expected --zero_gamma as true or false, received 'perhaps'"),
        ("--decay_epochs=1,x", "whole numbers with commas, received '1,x'"),
        ("--flagfile=nowhere.flags", "Can't read the flagfile nowhere.flags: No such file"),
        ("--flagfile", "a file after --flagfile"),
        ("digits", "Expected flags as --name=value, received 'digits'"),
        ("--label_smoothing=2", "label_smoothing at least 0 and below 1 and finite, received 2"),
    ],
)
def test_a_mistake_is_told_clearly(argument, message):
    with pytest.raises(MisuseError) as error:
        parse(argument)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_flagfile_that_includes_itself_is_refused(tmp_path):
    (tmp_path / "x.flags").write_text("--flagfile=x.flags")
    with pytest.raises(MisuseError, match="includes itself"):
        parse(f"--flagfile={tmp_path / 'x.flags'}")


def test_a_flagfile_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "x.flags").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MisuseError, match="it is no text"):
        parse(f"--flagfile={tmp_path / 'x.flags'}")


def test_the_help_names_every_flag_with_its_default():
    flags = Flags("train", "usage: keras-bot train", recipe=True)
    text = flags.help()
    assert all(line.split("=")[0] in text for line in Recipe().flag_lines())
    assert "[120]" in text and "(5.4)" in text
