"""Throughput of the input pipelines compared with common alternatives, measured in one run."""

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
from keras_bot.bench.plain_pipeline import PlainConfig, plain_pipeline
from keras_bot.bench.torch_peer import TorchPeer, time_batches
from keras_bot.data.augment import color
from keras_bot.data.augment import geometry as image
from keras_bot.errors import MisuseError, expect_at_least_one
from keras_bot.training.failures import user_errors

EVAL_CROP = 0.875
PAIRS = (("ours", "limit"), ("ours", "plain"), ("ours", "torchvision"), ("ours_eval", "keras_eval"))

_WARMUP_IMAGES = 512  # untimed in each turn, to drain the batches prefetched during tracing
_SPARE_BATCHES = 16  # after the last timed batch, so that no pipeline ends while it is timed
_ENDLESS = 2**20
_WINDOWS = 20  # per photo, for the `limit` arm

Arm = Callable[[int, int], float]  # (untimed batches, timed batches) -> seconds for the timed batches


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
    """Times input pipelines in turn on the same photos, so that a busy machine slows all of them.

    Training, from memory: `ours` is `data.train_pipeline` with the paper's whole recipe. `limit` only decodes random
    windows from the same distribution, sampled in advance. `plain` is the recipe with `tf.image`. `torchvision` uses
    RandomResizedCrop, flip, ColorJitter and Normalize with one worker per core. Evaluation, from files: `ours_eval` is
    `data.eval_pipeline`; `keras_eval` is Keras' image_dataset_from_directory with CenterCrop and Normalization.
    Each turn starts with a fresh iterator and untimed batches.

    Args:
        folder: directory of JPEGs, at any depth.
        image_size: height and width of the output images.
        batch_size: images per batch.
        repeats: turns per pipeline.
        count: images timed per turn, rounded up to whole batches.
        torch: also measure torchvision.
        memory: also measure peak memory; see `memory.bench_memory`.

    Returns:
        The settings; images_per_second: the median over each pipeline's turns; ratios: {"ours/limit": …}, the median
        over the turns of the ratio within a turn; turns: images per second of each turn; memory, if measured.

    Raises:
        MisuseError: if the folder contains no JPEG or a corrupt one, a number isn't positive, or torch is missing.
    """
    expect_at_least_one(image_size=image_size, batch_size=batch_size, repeats=repeats, count=count)
    if memory and batch_size > IMAGES[0]:
        raise MisuseError(f"--batch_size must be at most {IMAGES[0]} with --memory, received {batch_size}.")
    jpegs = read_jpegs(folder)
    _check_decodable(jpegs)
    batches = -(-count // batch_size)
    count = batches * batch_size
    warmup = -(-_WARMUP_IMAGES // batch_size)
    with contextlib.ExitStack() as stack:
        arms = training_arms(jpegs, batch_size, image_size)
        if torch:
            arms["torchvision"] = stack.enter_context(TorchPeer(jpegs.paths, batch_size, image_size))
        files = (warmup + batches + _SPARE_BATCHES) * batch_size
        linked = stack.enter_context(linked_folder(jpegs, files))
        pipelines = evaluation_pipelines(linked, batch_size, image_size)
        arms |= {name: functools.partial(time_batches, dataset) for name, dataset in pipelines.items()}
        with user_errors(None):
            seconds = take_turns(arms, repeats, warmup, batches)
    turns = [{name: count / duration for name, duration in turn.items()} for turn in seconds]
    report = {
        "photos": len(jpegs.paths),
        "image_size": image_size,
        "batch_size": batch_size,
        "count": count,
        "repeats": repeats,
        "cpus": os.cpu_count(),
        **summarise(turns),
    }
    if memory:
        report["memory"] = bench_memory(folder, image_size=image_size, batch_size=batch_size)
    return report


def training_arms(jpegs: Jpegs, batch_size: int, image_size: int) -> dict[str, Arm]:
    """Returns the endless pipelines `ours`, `limit` and `plain`."""
    copies = -(-10 * batch_size // len(jpegs.paths))  # makes the cost of an epoch's end negligible
    pipelines = {
        "ours": data.train_pipeline(
            jpegs.source(_ENDLESS), data.TrainConfig(batch_size=batch_size, image_size=image_size, epochs=1000)
        ),
        "limit": decode_windows(jpegs, batch_size),
        "plain": plain_pipeline(
            jpegs.images * copies,
            jpegs.labels * copies,
            len(jpegs.class_names),
            PlainConfig(batch_size=batch_size, image_size=image_size, epochs=_ENDLESS),
        ),
    }
    return {name: functools.partial(time_batches, dataset) for name, dataset in pipelines.items()}


def decode_windows(jpegs: Jpegs, batch_size: int) -> tf.data.Dataset:
    """Builds the `limit` arm: decodes random windows on all cores and yields only their sizes, int32 (B,)."""
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
    """Builds `ours_eval` and `keras_eval` for the files in `val`: shorter edge to size / 0.875, then centre crop.

    Keras crops the central square before resizing, which gives the same picture.
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
    batches = squares.map(lambda images, labels: (normalise(crop(images)), labels), num_parallel_calls=tf.data.AUTOTUNE)
    return {
        "ours_eval": data.eval_pipeline(
            source, data.EvalConfig(batch_size=batch_size, image_size=image_size, eval_crop=EVAL_CROP)
        ),
        "keras_eval": batches.prefetch(tf.data.AUTOTUNE),
    }


@contextlib.contextmanager
def linked_folder(jpegs: Jpegs, count: int) -> Iterator[pathlib.Path]:
    """Creates a temporary folder whose `val` has `count` links to the photos by class; `train` is a link to `val`."""
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
    """Returns the seconds of each arm's timed batches, one dict per round; odd rounds run in reverse order."""
    for arm in arms.values():
        arm(1, 1)  # compiles and warms the file cache
    rounds = []
    for repeat in range(repeats):
        seconds = {}
        for name in list(arms)[:: -1 if repeat % 2 else 1]:
            _wait_for_idle()
            seconds[name] = arms[name](warmup, batches)
        rounds.append({name: seconds[name] for name in arms})
    return rounds


def summarise(turns: list[dict[str, float]]) -> dict:
    """Returns the medians of images per second and of the ratios within a turn."""
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


def _wait_for_idle(limit: float = 5.0):
    """Waits until the threads of the previous turn have stopped prefetching, at most `limit` seconds."""
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(0.05)
        if time.process_time() - before < 0.005:
            return


def _check_decodable(jpegs: Jpegs):
    for path, encoded in zip(jpegs.paths, jpegs.images, strict=True):
        try:
            tf.image.extract_jpeg_shape(encoded)  # stricter than decode_jpeg
            tf.io.decode_jpeg(encoded, channels=3)
        except tf.errors.InvalidArgumentError:
            raise MisuseError(f"{path} is not a valid JPEG. Remove it from the folder.") from None
