"""Every flagfile has a header, gives a valid recipe, repeats nothing from its parent, and trains."""

import dataclasses
import pathlib
import re

import pytest

from keras_bot.cli.flagfiles import expand_flagfiles
from keras_bot.cli.flags import Flags
from keras_bot.recipe import Recipe

FLAGS = pathlib.Path(__file__).parents[1] / "flags"
FILES = sorted(FLAGS.rglob("*.flags"))
SHALLOW = (
    (r"^cifar_resnet\d+_", "cifar_resnet8_"),
    (r"^resnet18_", "resnet10_"),  # basic blocks
    (r"^resnet(50|152)_", "resnet14_"),  # bottlenecks
)
HEADER = ("What", "Paper", "Ours", "Hardware", "Command")


def name_of(path):
    return str(path.relative_to(FLAGS))


def recipe_of(path, *overrides) -> Recipe:
    flags = Flags("train", "", recipe=True)
    flags.parse_only_flags([f"--flagfile={path}", *overrides])
    return flags.recipe()


def own_lines(path):
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def settings(lines):
    """Returns flag values by name; `--x` and `--nox` become true and false."""
    found = {}
    for line in lines:
        name, _, value = line[2:].partition("=")
        if not value and not hasattr(Recipe, name) and name.startswith("no"):
            name, value = name[2:], "false"
        found[name] = value or "true"
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_header_describes_the_recipe_and_the_command(path):
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert tuple(re.match(r"# (\w+):", line).group(1) for line in head) == HEADER
    assert f"--flagfile=flags/{name_of(path)}" in head[-1]
    assert "TODO" not in "".join(head)


def test_commands_with_the_same_run_directory_have_the_same_recipe():
    recipes = {}
    for path in FILES:
        if run_dir := re.search(r"--run_dir=(\S+)", path.read_text()):
            recipes.setdefault(run_dir[1], {})[name_of(path)] = recipe_of(path)
    clashes = [sorted(found) for found in recipes.values() if len(set(found.values())) > 1]
    assert clashes == [] and len(recipes) > 40


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_child_only_contains_its_changes(path):
    parents = [line for line in own_lines(path) if line.startswith("--flagfile")]
    inherited = settings(expand_flagfiles(parents, folder=path.parent))
    for name, value in settings(line for line in own_lines(path) if line not in parents).items():
        assert inherited.get(name) != value, f"--{name}={value} is already in the parent"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_it_gives_a_recipe_from_any_directory(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert isinstance(recipe_of(path), Recipe)


def test_recipes_of_the_paper_have_its_settings():
    mixup = recipe_of(FLAGS / "paper/table6/resnet50_d_mixup_distillation.flags")
    assert (mixup.model, mixup.batch_size, mixup.epochs) == ("resnet50_d", 1024, 200)
    assert (mixup.mixup_alpha, mixup.label_smoothing, mixup.schedule) == (0.2, 0.1, "cosine")
    assert mixup.linear_scaling and mixup.zero_gamma and mixup.no_bias_decay and mixup.warmup_epochs == 5
    assert mixup.precision == "mixed_float16" and mixup.teacher and mixup.distill_temperature == 20
    boxes, masks = (recipe_of(FLAGS / f"paper/table{number}/resnet50_d_mixup.flags") for number in (8, 9))
    assert (boxes.task, boxes.head, masks.head) == ("detection", "faster_rcnn_c4", "fcn")
    assert boxes.init_from == masks.init_from == "runs/resnet50_d_mixup" and boxes.model == masks.model == "resnet50_d"
    baseline = recipe_of(FLAGS / "paper/table2/resnet50.flags")
    assert baseline == Recipe()
    assert recipe_of(FLAGS / "paper/table3/resnet50.flags") == recipe_of(FLAGS / "paper/table5/resnet50_a.flags")


ROWS = ("efficient", "cosine", "smoothing", "distillation", "mixup", "mixup_distillation")


@pytest.mark.parametrize(
    ("family", "changes"),
    [("inception_v3", {"model": "inception_v3", "image_size": 299}), ("mobilenet", {"model": "mobilenet_v1"})],
)
def test_rows_of_other_networks_equal_those_of_resnet_without_zero_gamma(family, changes):
    def assert_same(ours, resnets, **more):
        resnet = recipe_of(FLAGS / f"paper/{resnets}.flags")
        assert recipe_of(FLAGS / f"paper/{ours}.flags") == dataclasses.replace(resnet, **changes, **more)

    assert_same(f"table2/{family}", "table2/resnet50")
    assert_same(f"table3/{family}", "table3/resnet50", zero_gamma=False)
    for row in ROWS:
        assert_same(f"table6/{family}_{row}", f"table6/resnet50_d_{row}", zero_gamma=False)


def distinct_when_small(files):
    """Returns one file for each recipe that is distinct after `small`."""
    seen = {}
    for path in files:
        seen.setdefault(str(small(path, "any.keras")), path)
    return list(seen.values())


def small(path, teacher="", init_from="", scenes=None):
    """Returns the file's recipe with a narrow, shallow network, two steps and little data; `scenes` is data by task."""
    recipe = recipe_of(path)
    shallow = recipe.model
    for deep, other in SHALLOW:
        shallow = re.sub(deep, other, shallow)
    size, width = (75, 0.0625) if "inception" in recipe.model else (32, 0.125)
    classes = ("--dataset=synthetic", "--num_classes=4", "--synthetic_images=16", "--batch_size=8")
    if recipe.task != "classification":
        dataset = (scenes or {}).get(recipe.task, "")
        classes = (f"--dataset={dataset}", "--train_split=train", "--eval_split=val", "--batch_size=4")
    return recipe_of(
        path,
        *classes,
        *("--epochs=1", f"--width={width}", f"--image_size={size}", f"--model={shallow}", "--mixup_off_epochs=0"),
        *(f"--base_size={min(recipe.base_size, 48)}", "--head_channels=8", "--decay_epochs=30"),
        f"--warmup_epochs={0.5 if recipe.warmup_epochs else 0}",
        f"--teacher={teacher if recipe.teacher else ''}",
        f"--init_from={init_from if recipe.init_from else ''}",
    )


@pytest.fixture(scope="module")
def small_teacher(tmp_path_factory):
    from keras_bot import models

    path = tmp_path_factory.mktemp("teacher") / "teacher.keras"
    models.create_model("cifar_resnet8_d", num_classes=4, width=0.25).save(path)
    return path


ALWAYS = ("quickstart.flags", "cifar/table6/6_mixup_distillation.flags")


def marks(path):
    """The default tier trains the quickstart and a whole bag of tricks; `thorough` trains the others."""
    return [] if name_of(path) in ALWAYS else [pytest.mark.thorough]


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=name_of(path), marks=marks(path)) for path in distinct_when_small(FILES)]
)
def test_it_trains_a_small_network_for_two_steps(path, tmp_path, small_teacher, shared_scenes, monkeypatch):
    from keras_bot import models
    from keras_bot.trainer import train
    from keras_bot.training import run

    initial = tmp_path / "initial.keras"
    recipe = small(path, small_teacher, initial, shared_scenes)
    if recipe.init_from:
        models.create_model(recipe.model, num_classes=3, width=0.125).save(initial)
    monkeypatch.setattr(run, "draw_curves", lambda *_, **__: None)  # slow, and not what is tested
    result = train(recipe, tmp_path / "run", progress_bar=False)
    assert result["epochs"] == 1 and result["loss"] > 0
    assert (tmp_path / "run/model.keras").exists()
