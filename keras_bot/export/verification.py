"""Verification of exports: comparison of their outputs on random images with the expected ones."""

from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np

from keras_bot.errors import RunError

TOLERANCE = 2e-5  # relative to the greatest output; measured: at most 4e-6, for a ResNet-152
TINY = 1e-30
DISCRETE_SHARE = 0.9  # share of outputs that must agree if there are class indices: rounding decides near ties


def sample_sizes(image_size: int) -> tuple[tuple[int, int, int], ...]:
    """Returns (batch, height, width) of the inputs: one image, a batch, and a batch of a different, odd size."""
    other = (2, image_size + 5 - image_size % 2, image_size + 17 + image_size % 2)
    return (1, image_size, image_size), (3, image_size, image_size), other


def random_images(sizes: Sequence[tuple[int, int, int]]) -> Iterator[np.ndarray]:
    """Yields noisy blocks of colour, float32 (batch, height, width, 3) in 0 … 255, identical for each call."""
    draw = np.random.default_rng(0)
    for batch, height, width in sizes:
        blocks = draw.uniform(0, 255, (batch, -(-height // 8), -(-width // 8), 3))
        noise = draw.uniform(-40, 40, (batch, height, width, 3))
        images = blocks.repeat(8, 1).repeat(8, 2)[:, :height, :width] + noise
        yield np.clip(images, 0, 255).astype("float32")


def worst_difference(run: Callable, expected: Callable, sizes: Sequence[tuple[int, int, int]]) -> float:
    """Returns the greatest difference between two functions' outputs, relative to the greatest output.

    If there are integer outputs, such as classes after argmax or NMS, the greatest tenth of all differences is ignored.

    Args:
        run: function from random float32 images (B, H, W, 3) to the outputs of the export.
        expected: function from the same images to the outputs of the network.
        sizes: (batch, height, width) of the images.

    Returns:
        The relative difference; NaN if any output is NaN.

    Raises:
        RunError: if the shapes of outputs differ.
    """
    worst = []
    for images in random_images(sizes):
        differences, discrete = [], False
        for ours, theirs in zip(keras.tree.flatten(run(images)), keras.tree.flatten(expected(images)), strict=True):
            ours, theirs = keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs)
            if ours.shape != theirs.shape:
                raise RunError(f"an output has the shape {ours.shape}, but the network's is {theirs.shape}.")
            differences.append(np.abs(ours - theirs).ravel() / max(TINY, np.abs(theirs).max()))
            discrete |= np.issubdtype(theirs.dtype, np.integer)
        share = DISCRETE_SHARE if discrete else 1.0
        worst.append(np.quantile(np.concatenate(differences), share, method="lower"))
    return float(np.max(worst))


def check_difference(worst: float, name: str, format: str) -> None:
    """Raises RunError if the difference of an export of the network `name` exceeds the tolerance or is NaN."""
    if not worst <= TOLERANCE:
        raise RunError(
            f"The {format} export of {name} was deleted: its outputs differ from the network's by {worst:.2g} of the "
            f"greatest output, and {TOLERANCE:g} is allowed."
        )
