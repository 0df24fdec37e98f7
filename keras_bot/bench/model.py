"""How fast a network of ours is beside Keras' own ResNet-50, in training and inference."""

import statistics
import time

import keras
import numpy as np

from keras_bot import models, tricks
from keras_bot.errors import unknown
from keras_bot.training.fused_batch_norm import fuse_batch_norm

PEER = "keras_applications"
MODES = ("train", "forward")
NUM_CLASSES = 1000


def bench_model(
    name: str = "resnet50_d",
    peer: str = PEER,
    batch_size: int = 16,
    image_size: int = 224,
    dtype: str = "float32",
    repeats: int = 5,
    warmup: int = 1,
    mode: str = "train",
    jit: bool = False,
) -> dict:
    """Times steps of two networks in turn, so that a busy machine slows both, and compares the medians.

    A train step is Keras' own: forward, cross-entropy from logits, backward, SGD with Nesterov momentum.
    Images and labels are random and stay in memory. Ours steps as in `train`, with batch norm fused.
    Tracing and compiling are in the warmup and not counted.

    Args:
        name: a network of `models.names()`.
        peer: "keras_applications", which is keras.applications.ResNet50, or another of our names.
        batch_size: images in a step.
        image_size: their height and width.
        dtype: dtype policy of both: "float32", "mixed_bfloat16" or "mixed_float16".
        repeats: timed steps of each.
        warmup: steps of each before them, at least 1, since the first one traces and compiles.
        mode: "train" or "forward" (inference).
        jit: compile with XLA.

    Returns:
        The settings, and for "model" and "peer" a dict of seconds (median of a step), images_per_second,
        parameters and flops (multiply-adds an image); "ratio" is our images per second over the peer's.

    Raises:
        MisuseError: for an unknown name or peer.
        ValueError: for another argument out of its range.
    """
    if mode not in MODES:
        raise ValueError(f"Expected mode to be one of {', '.join(MODES)}, received {mode!r}.")
    if min(batch_size, image_size, repeats, warmup) < 1:
        raise ValueError(
            "Expected batch_size, image_size, repeats and warmup of at least 1, received "
            f"{batch_size}, {image_size}, {repeats}, {warmup}."
        )
    networks = {
        "model": _network(name, image_size, dtype, jit),
        "peer": _network(peer, image_size, dtype, jit),
    }
    steps = {key: _step(network, batch_size, image_size, mode) for key, network in networks.items()}
    seconds = _time_in_turn(steps, repeats, warmup)
    report = {key: _report(networks[key], seconds[key], batch_size, image_size) for key in networks}
    return {
        "name": name,
        "peer_name": peer,
        "batch_size": batch_size,
        "image_size": image_size,
        "dtype": dtype,
        "repeats": repeats,
        "mode": mode,
        "jit": jit,
        **report,
        "ratio": report["peer"]["seconds"] / report["model"]["seconds"],
    }


def _network(name, image_size, dtype, jit):
    shape = (image_size, image_size, 3)
    if name == PEER:
        with tricks.mixed_precision(dtype):
            network = keras.applications.ResNet50(
                weights=None, input_shape=shape, classes=NUM_CLASSES, classifier_activation=None
            )
    elif name in models.names():
        network = models.create(name, num_classes=NUM_CLASSES, input_shape=shape, dtype=dtype)
        fuse_batch_norm(network)
    else:
        raise unknown("model", name, [PEER, *models.names()])
    network.compile(
        optimizer=keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit,
    )
    return network


def _step(network, batch_size, image_size, mode):
    rng = np.random.default_rng(0)
    images = keras.ops.convert_to_tensor(rng.standard_normal((batch_size, image_size, image_size, 3), dtype="float32"))
    labels = keras.ops.convert_to_tensor(rng.integers(NUM_CLASSES, size=batch_size))
    if mode == "train":
        return lambda: network.train_on_batch(images, labels)
    return lambda: network.predict_on_batch(images)


def _time_in_turn(steps, repeats, warmup):
    """Seconds of each timed call, {key: [seconds, …]}. A step is over when its results are on the host."""
    seconds = {key: [] for key in steps}
    for repeat in range(warmup + repeats):
        for key, step in steps.items():
            start = time.perf_counter()
            step()
            if repeat >= warmup:
                seconds[key].append(time.perf_counter() - start)
    return seconds


def _report(network, seconds, batch_size, image_size):
    median = statistics.median(seconds)
    return {
        "seconds": median,
        "images_per_second": batch_size / median,
        "parameters": models.count_parameters(network),
        "flops": models.count_flops(network, image_size),
    }
