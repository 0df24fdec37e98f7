"""`keras-bot models`: the networks, with parameters and FLOPs."""

import json

from keras_bot.cli.flags import Flags
from keras_bot.cli.stderr import import_tensorflow
from keras_bot.errors import MisuseError, unknown

USAGE = "usage: keras-bot models [NAME …] [--image_size=224] [--json]"


def main(argv):
    """Prints a table of the given networks, or of all."""
    flags = Flags("models", USAGE)
    flags.add(int, "image_size", 0, "pixels that FLOPs are counted at; 0 is 224, 299 for Inception-V3, 32 for CIFAR's")
    flags.add(int, "num_classes", 0, "classes of the head; 0 is 1000, and 10 for the CIFAR networks")
    flags.add(bool, "json", False, "print JSON instead of a table")
    chosen = flags.parse(argv)
    if flags.help_wanted():
        return
    import_tensorflow()

    from keras_bot import models

    for flag in ("image_size", "num_classes"):
        if getattr(flags, flag) < 0:
            raise MisuseError(f"Expected --{flag} of at least 0, received {getattr(flags, flag)}.")
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
    print("\nparameters: trainable ones; FLOPs: multiply-adds of convolutions and dense layers, counted by keras_bot")


def _row(models, name, image_size, num_classes):
    usual = models.usual_image_size(name)
    image_size = image_size or usual
    num_classes = num_classes or (10 if usual == 32 else 1000)
    model = models.create(name, num_classes=num_classes)
    return {
        "model": name,
        "image_size": image_size,
        "num_classes": num_classes,
        "parameters": models.count_parameters(model),
        "flops": models.count_flops(model, image_size) if image_size >= models.smallest_image_size(name) else None,
    }
