"""How many images a second the input pipelines make, beside what a user would write instead, in one run."""

import contextlib
import functools
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from keras_bot import data
from keras_bot.bench.jpegs import Jpegs, read_jpegs
from keras_bot.bench.memory import IMAGES, bench_memory
from keras_bot.bench.plain_pipeline import plain_pipeline
from keras_bot.bench.torch_peer import TorchPeer, draw
from keras_bot.data import color, image
from keras_bot.errors import MisuseError, expect_at_least_one
from keras_bot.training.failures import clear_errors

EVAL_CROP = 0.875
PAIRS = (("ours", "limit"), ("ours", "plain"), ("ours", "torchvision"), ("ours_eval", "keras_eval"))

_WARMUP_IMAGES = 512  # untimed in each turn: what a pipeline made ahead while it was traced must be gone
_SPARE_BATCHES = 16  # behind the last timed one, so that no pipeline runs dry while it is timed
_ENDLESS = 2**20
_WINDOWS = 20  # of each photo, for the limit

Arm = Callable[[int, int], float]  # (untimed batches, timed batches) -> seconds of the latter


def bench_data(
    folder: str | pathlib.Path,
    *,
    image_size: int = 224,
    batch_size: int = 64,
    repeats: int = 5,
    count: int = 2048,
    torch: bool = False,
    memory: bool = False,
) -> dict:
    """Times input pipelines in turns on the same photos, so that a busy machine slows all.

    Training, from memory: `ours` is `data.train_pipeline` with the paper's whole recipe; `limit` only decodes random
    windows of the same distribution, drawn beforehand; `plain` is the recipe by `tf.image`; `torchvision` by
    RandomResizedCrop, flip, ColorJitter and Normalize with a worker a core. Evaluation, from files: `ours_eval` is
    `data.eval_pipeline`, `keras_eval` is Keras' image_dataset_from_directory with CenterCrop and Normalization.
    Each turn begins with a fresh iterator and untimed batches.

    Args:
        folder: of JPEGs, at any depth.
        image_size: height and width of what the pipelines make.
        batch_size: images in a batch.
        repeats: turns of each.
        count: images timed in a turn, rounded up to whole batches.
        torch: measure torchvision too.
        memory: measure peak memory too; see `memory.bench_memory`.

    Returns:
        The settings; images_per_second: the median of each pipeline's turns; ratios: {"ours/limit": …}, medians over
        the turns of the quotient within a turn; turns: the images a second of each turn; perhaps memory.

    Raises:
        MisuseError: if the folder holds no JPEG or one that is broken, a number isn't positive, or torch is missing.
    """
    expect_at_least_one(image_size=image_size, batch_size=batch_size, repeats=repeats, count=count)
    if memory and batch_size > IMAGES[0]:
        raise MisuseError(f"Expected --batch_size of at most {IMAGES[0]} with --memory, received {batch_size}.")
    jpegs = read_jpegs(folder)
    _check_whole(jpegs)
    batches = -(-count // batch_size)
    warmup = -(-_WARMUP_IMAGES // batch_size)
    with contextlib.ExitStack() as stack:
        arms = training_arms(jpegs, batch_size, image_size)
        if torch:
            arms["torchvision"] = stack.enter_context(TorchPeer(jpegs.paths, batch_size, image_size))
        files = (warmup + batches + _SPARE_BATCHES) * batch_size
        linked = stack.enter_context(linked_folder(jpegs, files))
        pipelines = evaluation_pipelines(linked, batch_size, image_size)
        arms |= {name: functools.partial(draw, made) for name, made in pipelines.items()}
        with clear_errors(None):
            seconds = take_turns(arms, repeats, warmup, batches)
    turns = [{name: batches * batch_size / took for name, took in turn.items()} for turn in seconds]
    report = {
        "photos": len(jpegs.paths),
        "image_size": image_size,
        "batch_size": batch_size,
        "count": batches * batch_size,
        "repeats": repeats,
        "cpus": os.cpu_count(),
        **summarise(turns),
    }
    if memory:
        report["memory"] = bench_memory(folder, image_size=image_size, batch_size=batch_size)
    return report


def training_arms(jpegs: Jpegs, batch_size: int, image_size: int) -> dict[str, Arm]:
    """`ours`, `limit` and `plain`, each without an end."""
    copies = -(-10 * batch_size // len(jpegs.paths))  # so that an epoch's end is no matter
    pipelines = {
        "ours": data.train_pipeline(jpegs.source(_ENDLESS), batch_size=batch_size, image_size=image_size, epochs=1000),
        "limit": decode_windows(jpegs, batch_size),
        "plain": plain_pipeline(
            jpegs.images * copies,
            jpegs.labels * copies,
            len(jpegs.class_names),
            batch_size=batch_size,
            image_size=image_size,
            epochs=_ENDLESS,
        ),
    }
    return {name: functools.partial(draw, batches) for name, batches in pipelines.items()}


def decode_windows(jpegs: Jpegs, batch_size: int) -> tf.data.Dataset:
    """The limit: random windows decoded on all cores and let go; elements tell the pixels' number, int32 (B,)."""
    shapes = np.array([tf.image.extract_jpeg_shape(encoded).numpy() for encoded in jpegs.images])
    encoded, total = tf.constant(list(jpegs.images)), _WINDOWS * len(jpegs.paths)

    def sample(index: tf.Tensor) -> tf.Tensor:
        uniform = tf.random.stateless_uniform([22], tf.stack([tf.constant(0, tf.int64), index]))
        return image.sample_crop(tf.gather(shapes, index % len(jpegs.paths))[:2], uniform, 0.08)

    windows = tf.data.Dataset.range(total).map(sample).batch(total).get_single_element()

    def decode(index: tf.Tensor) -> tf.Tensor:
        window = tf.gather(windows, index % total)
        return tf.size(tf.image.decode_and_crop_jpeg(tf.gather(encoded, index % len(jpegs.paths)), window, channels=3))

    decoded = tf.data.Dataset.counter().map(decode, num_parallel_calls=os.cpu_count(), deterministic=False)
    return decoded.batch(batch_size)


def evaluation_pipelines(folder: pathlib.Path, batch_size: int, image_size: int) -> dict[str, tf.data.Dataset]:
    """`ours_eval` and `keras_eval` on the files of the folder's `val`: shorter edge to size / 0.875, centre crop.

    Keras cuts out the middle square before it resizes, which is the same picture.
    """
    source = data.open_source(str(folder), "eval")
    edge = round(image_size / EVAL_CROP)
    squares = keras.utils.image_dataset_from_directory(
        folder / "val",
        label_mode="categorical",
        batch_size=batch_size,
        image_size=(edge, edge),
        crop_to_aspect_ratio=True,
        shuffle=False,
        verbose=False,
    )
    crop = keras.layers.CenterCrop(image_size, image_size)
    normalise = keras.layers.Normalization(mean=color.MEAN, variance=np.square(color.STD))
    made = squares.map(lambda images, labels: (normalise(crop(images)), labels), num_parallel_calls=tf.data.AUTOTUNE)
    return {
        "ours_eval": data.eval_pipeline(source, batch_size=batch_size, image_size=image_size, eval_crop=EVAL_CROP),
        "keras_eval": made.prefetch(tf.data.AUTOTUNE),
    }


@contextlib.contextmanager
def linked_folder(jpegs: Jpegs, count: int) -> Iterator[pathlib.Path]:
    """A folder `val` of `count` links to the photos in class folders, with `train` beside it, gone afterwards."""
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        for index in range(count):
            photo = index % len(jpegs.paths)
            link = root / "val" / jpegs.class_names[jpegs.labels[photo]] / f"{index:08}.jpg"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(jpegs.paths[photo])
        (root / "train").symlink_to(root / "val")
        yield root


def take_turns(arms: dict[str, Arm], repeats: int, warmup: int, batches: int) -> list[dict[str, float]]:
    """Seconds of every arm's timed batches, a dict a round; every other round goes backwards."""
    for arm in arms.values():
        arm(1, 1)  # compiles, and reads files for the first time
    rounds = []
    for repeat in range(repeats):
        seconds = {}
        for name in list(arms)[:: -1 if repeat % 2 else 1]:
            _wait_for_quiet()
            seconds[name] = arms[name](warmup, batches)
        rounds.append({name: seconds[name] for name in arms})
    return rounds


def summarise(turns: list[dict[str, float]]) -> dict:
    """Medians of images a second, and of the ratios within a turn."""
    names = list(turns[0])
    pairs = [(first, second) for first, second in PAIRS if second in names]
    return {
        "images_per_second": {name: round(statistics.median(turn[name] for turn in turns), 1) for name in names},
        "ratios": {
            f"{first}/{second}": round(statistics.median(turn[first] / turn[second] for turn in turns), 3)
            for first, second in pairs
        },
        "turns": {name: [round(turn[name], 1) for turn in turns] for name in names},
    }


def _wait_for_quiet(limit: float = 5.0):
    """Until the threads of the turn before have stopped working ahead, at most `limit` seconds."""
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(0.05)
        if time.process_time() - before < 0.005:
            return


def _check_whole(jpegs: Jpegs):
    for path, encoded in zip(jpegs.paths, jpegs.images, strict=True):
        try:
            tf.image.extract_jpeg_shape(encoded)  # which decode_jpeg doesn't insist on
            tf.io.decode_jpeg(encoded, channels=3)
        except tf.errors.InvalidArgumentError:
            raise MisuseError(
                f"Expected whole JPEGs, but {path} can't be decoded. Remove it from the folder."
            ) from None
