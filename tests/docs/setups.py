"""What a page's code blocks find in their directory, and what the tests shorten in them."""

import os
import pathlib
import subprocess
import sys

import builders
from guide import ROOT

# Text of a page's Python blocks -> its replacement, to save time.
REPLACED: dict[str, dict[str, str]] = {}

# Assertions that follow a page's Python blocks.
RELOADED = """
assert accuracy > 0.9
again = loaded.evaluate(images[1500:], labels[1500:], verbose=0)[1]
assert abs(again - accuracy) < 1e-6
"""
CHECKED = {"README.md": "assert accuracy > 0.9\n", "docs/tricks.md": RELOADED}


# Pages whose blocks of these languages run as one script in `thorough`, and what is shortened in it.
PAGE_RUNS: dict[str, tuple[str, ...]] = {}
SHORTENED: dict[str, dict[str, str]] = {}


def prepare(page: str, folder: pathlib.Path, language: str):
    """Puts into `folder` what the page's blocks assume: the repository's flagfiles and examples, and its own files."""
    (folder / "savedmodels").mkdir()
    for name in ("flags", "savedmodels/digits"):
        (folder / name).symlink_to(ROOT / name)
    for key in (page, (page, language)):
        PREPARED.get(key, lambda folder: None)(folder)


def run_script(page: str, script: str, folder: pathlib.Path) -> subprocess.CompletedProcess:
    """Runs a page's blocks in bash, with this environment's commands on the path."""
    for old, new in SHORTENED.get(page, {}).items():
        assert old in script, f"{page} no longer has {old!r}"
        script = script.replace(old, new)
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    command = ["bash", "-euo", "pipefail", "-c", script]
    options = {"capture_output": True, "text": True, "timeout": 1200}
    return subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, **options)


def write_photos(folder: pathlib.Path):
    """Writes `path/to/photos` with the classes class0 and class1, as a page calls a reader's folder."""
    builders.write_image_folder(folder / "path/to/photos", classes=2, train=40, val=3)


# Page, or page and language of its blocks -> function of the fresh directory.
PREPARED = {}

PAGE_RUNS["docs/getting_started.md"] = ("bash",)
SHORTENED["docs/getting_started.md"] = {
    "python3 -m venv .venv\n.venv/bin/pip install .\nsource .venv/bin/activate\n": "",
    "quickstart.flags --run_dir": "quickstart.flags --epochs=3 --mixup_off_epochs=1 --model=cifar_resnet8_d --run_dir",
}
REPLACED["docs/getting_started.md"] = {"cifar_resnet20_d": "cifar_resnet8_d", "epochs=3": "epochs=1"}


def write_photos_to_split_and_an_export(folder: pathlib.Path):
    """Writes `all_photos/CLASS` and `savedmodels/photos`, which is the example of the repository."""
    builders.write_image_folder(folder / "folder", classes=2, train=10, val=1)
    (folder / "folder/train").rename(folder / "all_photos")
    (folder / "savedmodels/photos").symlink_to(ROOT / "savedmodels/digits")


PREPARED["docs/your_images.md", "python"] = write_photos_to_split_and_an_export
CHECKED["docs/your_images.md"] = (
    "assert len(list(target.glob('val/*/*'))) == 4 == len(list(target.glob('train/*/*'))) / 4\n"
)
PAGE_RUNS["docs/your_images.md"] = ("bash",)
SHORTENED["docs/your_images.md"] = {
    "ResNet50().save": "ResNet50(weights=None).save",
    "--run_dir=runs/finetuned": "--epochs=1 --warmup_epochs=0 --image_size=32 --batch_size=360 "
    "--run_dir=runs/finetuned",
    "--run_dir=runs/photos\n": "--epochs=1 --warmup_epochs=0 --mixup_alpha=0 --mixup_off_epochs=0 --image_size=32 "
    "--width=0.25 --run_dir=runs/photos\n",
}

PREPARED["docs/data.md"] = write_photos
PAGE_RUNS["docs/data.md"] = ("bash",)
SHORTENED["docs/data.md"] = {
    "--run_dir=runs/photos": "--epochs=1 --warmup_epochs=0 --mixup_alpha=0 --mixup_off_epochs=0 --image_size=32 "
    "--width=0.25 --run_dir=runs/photos"
}
REPLACED["docs/data.md"] = {
    "keras.datasets.cifar10.load_data()": "[(np.zeros((10000, 32, 32, 3), np.uint8), np.arange(10000) % 10)] * 2"
}

PAGE_RUNS["docs/recipes.md"] = ("bash",)
SHORTENED["docs/recipes.md"] = {
    "quickstart.flags --run_dir": "quickstart.flags --epochs=3 --mixup_off_epochs=1 --model=cifar_resnet8_d --run_dir",
    "--epochs=20": "--epochs=3\n--model=cifar_resnet8_d",
}

PAGE_RUNS["docs/ablations.md"] = ("bash",)
SHORTENED["docs/ablations.md"] = {
    "--epochs=10": "--epochs=3",
    "my_ablation/*.flags' --seeds=0,1,2": "my_ablation/*.flags' --seeds=0,1",
    "keras-bot ablate --mode=leave_one_out": "keras-bot ablate --dry_run --mode=leave_one_out",
    "keras-bot train --flagfile=flags/cifar10": ": keras-bot train --flagfile=flags/cifar10",  # needs CIFAR-10
    "keras-bot ablate --recipes='flags/cifar": ": keras-bot ablate --recipes='flags/cifar",
}

PAGE_RUNS["docs/distillation.md"] = ("bash",)
SHORTENED["docs/distillation.md"] = {"quickstart.flags --": "quickstart.flags --epochs=3 --mixup_off_epochs=1 --"}

TINY_PHOTOS = "--epochs=1 --warmup_epochs=0 --mixup_off_epochs=0 --image_size=32 --width=0.25"
TRAIN_PHOTOS = f"keras-bot train --flagfile=flags/photos.flags --dataset=path/to/photos {TINY_PHOTOS}"


def write_transfer_data(folder: pathlib.Path):
    """Writes the photos of two data sets, boxes, masks and `photo.jpg`."""
    write_photos(folder)
    builders.write_image_folder(folder / "path/to/birds", classes=3, train=20, val=3)
    scenes = builders.write_scenes(folder / "path/to")
    scenes["detection"].rename(folder / "path/to/voc")
    scenes["segmentation"].rename(folder / "path/to/scenes")
    builders.write_image(folder / "photo.jpg")


PREPARED["docs/transfer.md"] = write_transfer_data
REPLACED["docs/transfer.md"] = {'"savedmodels/photos"': '"resnet10_d"'}
PAGE_RUNS["docs/transfer.md"] = ("bash",)
SHORTENED["docs/transfer.md"] = {
    "--run_dir=runs/photos\n": f"{TINY_PHOTOS} --run_dir=runs/photos\n",
    "--epochs=30 --mixup_off_epochs=6": TINY_PHOTOS,
    "--warmup_epochs=1 --global_clipnorm=5 --epochs=8": "--global_clipnorm=5 --epochs=1 --head_channels=16",
    "--image_size=256": "--image_size=64",
    "--epochs=16": "--epochs=1",
    "--image_size=192": "--image_size=64",
}


def write_run_and_exports(folder: pathlib.Path):
    """Writes the network of `runs/photos`, and its `.onnx` and `.tflite` exports."""
    import keras_bot

    network = keras_bot.models.ResNet10D(num_classes=2, width=0.25)
    (folder / "runs/photos").mkdir(parents=True)
    network.save(folder / "runs/photos/model.keras")
    facts = {"image_size": 128, "description": {"class_names": ["cat", "dog"]}}
    for suffix in ("onnx", "tflite"):
        keras_bot.export_model(network, folder / f"savedmodels/photos.{suffix}", **facts)


def write_photos_and_one_more(folder: pathlib.Path):
    """Writes `path/to/photos` and `photo.jpg`."""
    write_photos(folder)
    builders.write_image(folder / "photo.jpg")


PREPARED["docs/export.md"] = write_photos_and_one_more
PREPARED["docs/export.md", "python"] = write_run_and_exports
PAGE_RUNS["docs/export.md"] = ("bash",)
SHORTENED["docs/export.md"] = {
    "keras-bot export --run_dir=runs/photos": f"{TRAIN_PHOTOS} --run_dir=runs/photos\n"
    "keras-bot export --run_dir=runs/photos"
}

PREPARED["docs/pretrained_weights.md"] = write_photos
PAGE_RUNS["docs/pretrained_weights.md"] = ("bash",)
SHORTENED["docs/pretrained_weights.md"] = {
    "ResNet50()": "MobileNet(weights=None)",
    "--run_dir=runs/finetuned\n": "--epochs=1 --warmup_epochs=0 --image_size=32 --run_dir=runs/finetuned\n",
    "keras-bot export --run_dir=runs/resnet50_d": f"{TRAIN_PHOTOS} --width=1 --run_dir=runs/resnet50_d\n"
    "keras-bot export --run_dir=runs/resnet50_d",
}

PREPARED["docs/troubleshooting.md"] = write_photos
PAGE_RUNS["docs/troubleshooting.md"] = ("bash",)
