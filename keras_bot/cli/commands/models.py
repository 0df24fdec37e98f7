"""`keras-bot models`: lists the networks with parameters and FLOPs."""

import json

from keras_bot.cli.backend import start_tensorflow
from keras_bot.cli.flags import Flags
from keras_bot.errors import MisuseError, unknown

USAGE = "usage: keras-bot models [NAME …] [--image_size=224] [--json]"
EXAMPLES = ("keras-bot models", "keras-bot models resnet50_d mobilenet_v1 --image_size=192")


def main(argv: list[str]) -> None:
    """Prints a table of the named networks, or of all."""
    flags = Flags("models", USAGE, EXAMPLES)
    help = "input height and width in pixels for the FLOPs; 0 uses 224, 299 for Inception-V3 and 32 for CIFAR networks"
    flags.add(int, "image_size", 0, help)
    flags.add(int, "num_classes", 0, "number of classes; 0 uses 1000, and 10 for CIFAR networks")
    flags.add(bool, "json", False, "print JSON instead of a table")
    chosen = flags.parse(argv)
    if flags.handle_help():
        return
    start_tensorflow()

    from keras_bot import models

    for flag in ("image_size", "num_classes"):
        if getattr(flags, flag) < 0:
            raise MisuseError(f"--{flag} must be at least 0, received {getattr(flags, flag)}.")
    for name in chosen:
        if name not in models.names():
            raise unknown("model", name, models.names())
    rows = [_row(models, name, flags.image_size, flags.num_classes) for name in chosen or models.names()]
    if flags.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'model':<20}{'input':>10}{'classes':>9}{'parameters':>14}{'GFLOPs':>10}")
    for row in rows:
        size = f"{row['image_size']}x{row['image_size']}"
        gflops = "too small" if row["flops"] is None else f"{row['flops'] / 1e9:.3g}"
        print(f"{row['model']:<20}{size:>10}{row['num_classes']:>9}{row['parameters']:>14,}{gflops:>10}")
    print("\nparameters: trainable; FLOPs: multiply-adds of convolutions and dense layers")


def _row(models, name, image_size, num_classes):
    usual = models.info(name).image_size
    image_size = image_size or usual
    num_classes = num_classes or (10 if usual == 32 else 1000)
    model = models.create_model(name, num_classes=num_classes)
    return {
        "model": name,
        "image_size": image_size,
        "num_classes": num_classes,
        "parameters": models.count_parameters(model),
        "flops": models.count_flops(model, image_size) if image_size >= models.info(name).smallest_image_size else None,
    }
