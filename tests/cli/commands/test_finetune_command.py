"""`keras-bot finetune`: the source's settings, unless the command line has others."""

import json

import pytest
from processes import run_command

from keras_bot import models


@pytest.fixture
def source(tmp_path):
    """A run directory of a ResNet-8-D for 16x16 images of four classes."""
    recipe = {"model": "cifar_resnet8_d", "width": "0.25", "image_size": "16", "transform": "cifar"}
    (tmp_path / "source").mkdir()
    models.create_model("cifar_resnet8_d", num_classes=4, width=0.25).save(tmp_path / "source/model.keras")
    (tmp_path / "source/metrics.json").write_text(json.dumps({"recipe": recipe, "dataset": {"class_names": "abcd"}}))
    return tmp_path / "source"


@pytest.mark.parametrize(("flags", "size"), [([], 16), (["--image_size=24"], 24)])
def test_a_flag_overrides_the_setting_of_the_source(source, npz_file, tmp_path, flags, size):
    data = [f"--dataset={npz_file()}", "--batch_size=8", f"--run_dir={tmp_path / 'run'}"]
    printed = run_command("finetune", f"--init_from={source}", *data, "--dry_run", *flags).out
    assert f"\n  image_size={size}\n" in printed and f" at {size}x{size}" in printed
    assert "\n  model=cifar_resnet8_d\n" in printed and "\n  width=0.25\n" in printed
