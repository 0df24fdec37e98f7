"""`keras-bot bench …`: speed of training steps and input pipelines compared with peers, measured in the same run."""

import json
import sys

from keras_bot.cli.flags import Flags
from keras_bot.cli.stderr import import_tensorflow
from keras_bot.errors import MisuseError, unknown

USAGE = """usage: keras-bot bench model [NETWORK]      a network beside Keras', KerasHub's, timm's (default resnet50_d)
       keras-bot bench refinements          a step with the bag of tricks beside one without, by a recipe's flags
       keras-bot bench data --images=FOLDER the input pipelines beside plain tf.image, Keras' and torchvision's
       keras-bot bench pipelines            accuracy with our input pipeline and a plain one, by a recipe's flags"""


def main(argv):
    """Runs one benchmark and prints its results as JSON."""
    benches = {
        "model": bench_model,
        "refinements": bench_refinements,
        "data": bench_data,
        "pipelines": bench_pipelines,
    }
    if not argv or argv[0] in ("--help", "-h"):
        print(USAGE)
        return 0 if argv else 2
    if argv[0] not in benches:
        raise unknown("benchmark", argv[0], benches)
    return benches[argv[0]](argv[1:])


def bench_model(argv):
    """Prints images per second of one of our networks and of its peers."""
    flags = Flags("bench model", USAGE)
    flags.add(
        str,
        "peers",
        "keras_applications",
        "with commas: keras_applications (its ResNet50), keras_hub (ResNet-50-vd), timm (resnet50d), others of ours",
    )
    flags.add(str, "backends", "tensorflow", "with commas: tensorflow, jax, torch, for ours and the peers of Keras")
    flags.add(int, "batch_size", 16, "images in a step")
    flags.add(int, "image_size", 224, "their height and width in pixels")
    flags.add(str, "precision", "float32", "dtype policy of both: float32, mixed_bfloat16, mixed_float16")
    flags.add(int, "repeats", 5, "timed steps of each")
    flags.add(str, "mode", "train", "train or forward")
    flags.add(bool, "jit", False, "compile with XLA, or torch.compile; on JAX always")
    flags.add(bool, "folded", False, "also ours with batch norm folded into the convolutions, in inference")
    names = flags.parse(argv)
    if flags.help_wanted():
        return
    if len(names) > 1:
        raise MisuseError(f"Expected one network, received {' '.join(names)}.")
    import_tensorflow()

    from keras_bot.bench.model import bench_model, table

    peers, backends = (tuple(filter(None, given.split(","))) for given in (flags.peers, flags.backends))
    report = bench_model(
        *names,
        peers=peers,
        backends=backends,
        mode=flags.mode,
        batch_size=flags.batch_size,
        image_size=flags.image_size,
        dtype=flags.precision,
        repeats=flags.repeats,
        jit=flags.jit,
        folded=flags.folded,
    )
    print(table(report), file=sys.stderr)
    print(json.dumps(report, indent=2))


def bench_refinements(argv):
    """Prints seconds per step with and without the tricks."""
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


def bench_data(argv):
    """Prints images per second of our input pipelines and of the usual alternatives."""
    flags = Flags("bench data", USAGE)
    flags.add(str, "images", "", "a folder of JPEGs, at any depth; they are held in memory")
    flags.add(int, "image_size", 224, "height and width of what the pipelines make, in pixels")
    flags.add(int, "batch_size", 64, "images in a batch")
    flags.add(int, "repeats", 5, "timed turns of each pipeline")
    flags.add(int, "count", 2048, "images timed in a turn")
    flags.add(bool, "torch", False, "measure torchvision too, which must be installed")
    flags.add(bool, "memory", False, "measure peak memory with 1,000 and 100,000 images too: minutes")
    flags.expect_no_arguments(argv)
    if flags.help_wanted():
        return
    import_tensorflow()

    from keras_bot.bench.data import bench_data

    report = bench_data(
        flags.images,
        image_size=flags.image_size,
        batch_size=flags.batch_size,
        repeats=flags.repeats,
        count=flags.count,
        torch=flags.torch,
        memory=flags.memory,
    )
    print(json.dumps(report, indent=2))


def bench_pipelines(argv):
    """Prints top-1 accuracy after training with our input pipeline and a plain one; logs each training to stderr."""
    flags = Flags("bench pipelines", USAGE, recipe=True)
    flags.add(int, "seeds", 3, "trainings by each pipeline, with seeds from --seed on")
    flags.add(str, "arms", "fast,plain", "which pipelines to train with: fast (ours), plain, or both with a comma")
    flags.expect_no_arguments(argv)
    if flags.help_wanted():
        return
    recipe = flags.recipe()
    import_tensorflow()

    from keras_bot.bench.pipelines import bench_pipelines

    def tell(finished):
        print(json.dumps(finished), file=sys.stderr, flush=True)

    arms = [arm for arm in flags.arms.split(",") if arm]
    print(json.dumps(bench_pipelines(recipe, seeds=flags.seeds, arms=arms, tell=tell), indent=2))
