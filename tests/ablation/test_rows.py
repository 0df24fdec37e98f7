"""Names of rows, the paper's results, and rejected recipes; nothing is trained."""

import pathlib

import pytest

from keras_bot.ablation.rows import make_rows, name_files, read_paper
from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe

FLAGS = pathlib.Path(__file__).parents[2] / "flags"


@pytest.fixture
def file(tmp_path):
    """Makes a recipe file with `paper` in its header."""

    def make(name, paper="none"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# What: x\n# Paper:    {paper}\n# Ours: 12.3\n")
        return str(path)

    return make


def test_rows_have_the_names_of_their_files():
    assert name_files(["x/2_warmup.flags", "x/1_base.flags", "other.txt"]) == ["2_warmup", "1_base", "other"]


def test_files_of_the_same_name_get_the_names_of_their_folders():
    names = name_files(["table6/d.flags", "table9/d.flags", "table6/mixup.flags"])
    assert names == ["table6_d", "table9_d", "mixup"]
    assert name_files(["a/x/d.flags", "b/x/d.flags", "y/d.flags"]) == ["a_x_d", "b_x_d", "y_d"]
    with pytest.raises(MisuseError, match="would have the row name"):
        name_files(["x/d.flags", "y/d.flags", "x_d.flags"])


def test_two_names_of_the_same_file_are_rejected(tmp_path):
    (tmp_path / "a.flags").write_text("")
    (tmp_path / "b.flags").symlink_to(tmp_path / "a.flags")
    with pytest.raises(MisuseError, match=r"a\.flags and .*b\.flags are the same file"):
        name_files([str(tmp_path / "a.flags"), str(tmp_path / "b.flags")])


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("76.03 / 92.81 top-1 / top-5 %", {"top1": 76.03, "top5": 92.81}),
        ("75.87 / 92.70 top-1 / top-5 %, 13.3 minutes an epoch", {"top1": 75.87, "top5": 92.70}),
        ("78.88 / 38.88 pixel accuracy / mIoU, %", {"pixel_accuracy": 78.88, "mean_iou": 38.88}),
        ("79.25 / 39.33 pixel accuracy / mIoU, % (stop here)", {"pixel_accuracy": 79.25, "mean_iou": 39.33}),
        ("77.54 mAP, %", {"map": 77.54}),
        ("80 %", {"": 80.0}),
        ("120 epochs", {}),
        ("none: not the paper's data", {}),
        ("not given for B; ResNet-50 has 75.87 / 92.70 top-1 / top-5 %", {}),
        ("", {}),
    ],
)
def test_the_papers_results_are_read_from_the_header(header, expected, file):
    assert read_paper(file("a.flags", header)) == expected


def test_all_results_in_the_papers_flagfiles_are_read():
    for path in sorted((FLAGS / "paper").rglob("*.flags")):
        header = next(line for line in path.read_text().splitlines() if line.startswith("# Paper:"))
        assert bool(read_paper(str(path))) == header.removeprefix("# Paper:").strip()[0].isdigit()


def test_cumulative_rows_are_the_given_recipes(file):
    recipes = {file("b.flags"): Recipe(seed=3), file("a.flags", "77.5 / 93 top-1 / top-5 %"): Recipe(zero_gamma=True)}
    below, above = make_rows(recipes, "cumulative")
    assert (below.name, above.name, above.paper["top1"]) == ("b", "a", 77.5)
    assert below.recipe == Recipe() and above.with_seed(5) == Recipe(zero_gamma=True, seed=5)


def test_each_seed_has_its_own_teacher_cache(file):
    (row,) = make_rows({file("one.flags"): Recipe(teacher="runs/teacher", teacher_cache="cache")}, "cumulative")
    assert [row.with_seed(seed).teacher_cache for seed in (0, 7)] == ["cache/seed0", "cache/seed7"]


def test_leave_one_out_rows_are_the_full_recipe_and_it_without_each_trick(file):
    recipe = Recipe(zero_gamma=True, schedule="cosine")
    rows = make_rows({file("full.flags", "77.5 / 93 top-1 / top-5 %"): recipe}, "leave_one_out")
    assert [row.name for row in rows] == ["full", "without_zero_gamma", "without_cosine"]
    assert rows[0].paper and not rows[1].paper and not rows[1].recipe.zero_gamma


def test_recipes_that_cannot_be_compared_are_rejected(file):
    one, two = file("one.flags"), file("two.flags")
    for recipes, mode, message in (
        ({}, "cumulative", "No recipe was given"),
        ({one: Recipe()}, "cumulativ", "Did you mean cumulative"),
        ({one: Recipe(zero_gamma=True), two: Recipe()}, "leave_one_out", "--mode=leave_one_out needs a single recipe"),
        ({file("table.md.flags"): Recipe()}, "cumulative", r"table\.md\.flags begins with a dot or is the name of one"),
        ({one: Recipe(seed=1), two: Recipe(seed=2)}, "cumulative", r"one\.flags and .*two\.flags have the same sett"),
        ({one: Recipe(), two: Recipe(task="detection")}, "cumulative", r"the same task, .*one\.flags, detection in"),
        (
            {one: Recipe(task="detection"), two: Recipe(task="detection", map_metric="coco")},
            "cumulative",
            "the same map_metric, .*voc in .*coco in",
        ),
    ):
        with pytest.raises(MisuseError, match=message):
            make_rows(recipes, mode)
