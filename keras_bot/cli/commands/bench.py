"""`keras-bot bench …`: training steps and input pipelines compared with other libraries, measured in the same run."""

import json
import sys
from typing import Any

from keras_bot.cli.backend import start_tensorflow
from keras_bot.cli.flags import Flags
from keras_bot.errors import MisuseError, unknown

USAGE = "usage: keras-bot bench BENCHMARK [--flag=value …]"
USAGES = {
    "model": "usage: keras-bot bench model [NETWORK] [--flag=value …]",
    "refinements": "usage: keras-bot bench refinements [--flag=value …]",
    "data": "usage: keras-bot bench data --images=FOLDER [--flag=value …]",
    "pipelines": "usage: keras-bot bench pipelines [--flag=value …]",
}
EXAMPLES = {
    "model": "keras-bot bench model resnet50_d --image_size=64",
    "refinements": "keras-bot bench refinements --flagfile=flags/quickstart.flags",
    "data": "keras-bot bench data --images=path/to/photos",
    "pipelines": "keras-bot bench pipelines --flagfile=flags/photos.flags --dataset=path/to/photos",
}


def main(argv: list[str]) -> int:
    """Runs one benchmark and prints its results as JSON."""
    benches = {
        "model": bench_model,
        "refinements": bench_refinements,
        "data": bench_data,
        "pipelines": bench_pipelines,
    }
    if not argv or argv[0].startswith("-"):
        about = f"The benchmarks are {', '.join(benches)}; `keras-bot bench BENCHMARK --help` describes one."
        flags = Flags("bench", USAGE, tuple(EXAMPLES.values()), about=about)
        flags.parse_only_flags(argv)
        print(flags.help())
        return 0 if argv else 2
    if argv[0] not in benches:
        raise unknown("benchmark", argv[0], benches)
    benches[argv[0]](argv[1:])
    return 0


def _flags(name, *, recipe=False):
    return Flags(f"bench {name}", USAGES[name], (EXAMPLES[name],), recipe=recipe)


def bench_model(argv: list[str]) -> None:
    """Prints the speed of one of our networks and of its peers, in images per second."""
    flags = _flags("model")
    _add_model_flags(flags)
    names = flags.parse(argv)
    if flags.handle_help():
        return
    if len(names) > 1:
        raise MisuseError(f"Pass one network, received {' '.join(names)}. Use --peers for the others.")
    start_tensorflow()

    from keras_bot.bench.contestant import StepSettings
    from keras_bot.bench.model import bench_model, table

    peers, backends = (tuple(filter(None, text.split(","))) for text in (flags.peers, flags.backends))
    settings = StepSettings(
        mode=flags.mode,
        batch_size=flags.batch_size,
        image_size=flags.image_size,
        dtype=flags.precision,
        jit_compile=flags.jit_compile,
    )
    named: dict[str, Any] = {"name": names[0]} if names else {}
    report = bench_model(
        **named, peers=peers, backends=backends, settings=settings, repeats=flags.repeats, folded=flags.folded
    )
    print(table(report), file=sys.stderr)
    print(json.dumps(report, indent=2))


def _add_model_flags(flags):
    help = (
        "networks to compare with, separated by commas: keras_applications (ResNet50), keras_hub (ResNet-50-vd), timm "
        "(resnet50d), or networks of keras_bot"
    )
    flags.add(str, "peers", "keras_applications", help)
    help = "backends for our networks and Keras peers, separated by commas: tensorflow, jax, torch"
    flags.add(str, "backends", "tensorflow", help)
    flags.add(int, "batch_size", 16, "images per step")
    flags.add(int, "image_size", 224, "height and width of the images in pixels")
    flags.add(str, "precision", "float32", "dtype policy: float32, mixed_bfloat16 or mixed_float16")
    flags.add(int, "repeats", 5, "number of timed steps per network")
    flags.add(str, "mode", "train", "train or forward (inference)")
    help = "compile with XLA, or with torch.compile on PyTorch; always on with JAX"
    flags.add(bool, "jit_compile", False, help, old_name="jit")
    flags.add(
        bool, "folded", False, "also time our network with batch norm folded into the convolutions, for inference"
    )


def bench_refinements(argv: list[str]) -> None:
    """Prints the seconds per training step with and without the bag of tricks."""
    flags = _flags("refinements", recipe=True)
    flags.add(int, "steps", 10, "steps per timed block")
    flags.add(int, "repeats", 7, "number of timed blocks with the tricks, and of blocks without")
    flags.parse_only_flags(argv)
    if flags.handle_help():
        return
    recipe = flags.recipe()
    start_tensorflow()

    from keras_bot.bench.refinements import bench_refinements

    print(json.dumps(bench_refinements(recipe, steps=flags.steps, repeats=flags.repeats), indent=2))


def bench_data(argv: list[str]) -> None:
    """Prints the speed of our input pipelines and of common alternatives, in images per second."""
    flags = _flags("data")
    flags.add(str, "images", "", "folder of JPEGs, at any depth; they are read into memory")
    flags.add(int, "image_size", 224, "height and width of the output images in pixels")
    flags.add(int, "batch_size", 64, "images per batch")
    flags.add(int, "repeats", 5, "number of timed measurements per pipeline")
    flags.add(int, "count", 2048, "images per measurement")
    flags.add(bool, "torch", False, "also time torchvision, which must be installed")
    flags.add(bool, "memory", False, "also measure peak memory with 1,000 and 100,000 images; takes minutes")
    flags.parse_only_flags(argv)
    if flags.handle_help():
        return
    start_tensorflow()

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


def bench_pipelines(argv: list[str]) -> None:
    """Prints top-1 accuracy after training with our input pipeline and a plain one; logs each run to stderr."""
    flags = _flags("pipelines", recipe=True)
    flags.add(int, "seeds", 3, "number of runs per pipeline, with consecutive seeds starting at --seed")
    flags.add(str, "arms", "fast,plain", "pipelines to train with: fast (ours), plain, or both separated by a comma")
    flags.parse_only_flags(argv)
    if flags.handle_help():
        return
    recipe = flags.recipe()
    start_tensorflow()

    from keras_bot.bench.pipelines import bench_pipelines

    def log(result: dict[str, Any]) -> None:
        print(json.dumps(result), file=sys.stderr, flush=True)

    arms = [arm for arm in flags.arms.split(",") if arm]
    print(json.dumps(bench_pipelines(recipe, seeds=flags.seeds, arms=arms, on_trained=log), indent=2))
