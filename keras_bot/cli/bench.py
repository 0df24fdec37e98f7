"""`keras-bot bench model|refinements`: speed of the training step beside a peer's, measured in one run."""

import json

from keras_bot.cli.flags import Flags
from keras_bot.cli.quiet import import_tensorflow
from keras_bot.errors import MisuseError, unknown

USAGE = """usage: keras-bot bench model [NETWORK]      a network beside keras.applications.ResNet50 (default resnet50_d)
       keras-bot bench refinements          a step with the bag of tricks beside one without, by a recipe's flags"""


def main(argv):
    """Runs one benchmark, and prints its figures as JSON."""
    benches = {"model": bench_model, "refinements": bench_refinements}
    if not argv or argv[0] in ("--help", "-h"):
        print(USAGE)
        return 0 if argv else 2
    if argv[0] not in benches:
        raise unknown("benchmark", argv[0], benches)
    return benches[argv[0]](argv[1:])


def bench_model(argv):
    """Images per second of a network of ours and of a peer."""
    flags = Flags("bench model", USAGE)
    flags.add(str, "peer", "keras_applications", "keras_applications (its ResNet50) or another of our networks")
    flags.add(int, "batch_size", 16, "images in a step")
    flags.add(int, "image_size", 224, "their height and width in pixels")
    flags.add(str, "precision", "float32", "dtype policy of both: float32, mixed_bfloat16, mixed_float16")
    flags.add(int, "repeats", 5, "timed steps of each")
    flags.add(str, "mode", "train", "train or forward")
    flags.add(bool, "jit", False, "compile both with XLA")
    names = flags.parse(argv)
    if flags.help_wanted():
        return
    if len(names) > 1:
        raise MisuseError(f"Expected one network, received {' '.join(names)}.")
    import_tensorflow()

    from keras_bot.bench.model import bench_model

    try:
        report = bench_model(
            *names,
            peer=flags.peer,
            batch_size=flags.batch_size,
            image_size=flags.image_size,
            dtype=flags.precision,
            repeats=flags.repeats,
            mode=flags.mode,
            jit=flags.jit,
        )
    except ValueError as error:
        raise MisuseError(str(error)) from None
    print(json.dumps(report, indent=2))


def bench_refinements(argv):
    """Seconds of a step with and without the tricks."""
    flags = Flags("bench refinements", USAGE, recipe=True)
    flags.add(int, "steps", 10, "steps in a timed block")
    flags.add(int, "repeats", 7, "blocks of each")
    flags.expect_no_arguments(argv)
    if flags.help_wanted():
        return
    recipe = flags.recipe()
    import_tensorflow()

    from keras_bot.bench.refinements import bench_refinements

    print(json.dumps(bench_refinements(recipe, steps=flags.steps, repeats=flags.repeats), indent=2))
