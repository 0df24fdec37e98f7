"""Reading an export back: its outputs on random images beside those that it must give."""

from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np

from keras_bot.errors import RunError

TOLERANCE = 2e-5  # of the greatest output; measured: 4e-6 at most, a ResNet-152
TINY = 1e-30
DISCRETE_SHARE = 0.9  # of the outputs that must agree where classes are given: rounding decides near ties


def check_sizes(size: int) -> tuple[tuple[int, int, int], ...]:
    """(batch, height, width) to check with: one image, a batch, and a batch of another height and width, both odd."""
    return (1, size, size), (3, size, size), (2, size + 5 - size % 2, size + 17 + size % 2)


def random_images(sizes: Sequence[tuple[int, int, int]]) -> Iterator[np.ndarray]:
    """Yields noisy blocks of colour, float32 (batch, height, width, 3) in 0 … 255, the same at each call."""
    draw = np.random.default_rng(0)
    for batch, height, width in sizes:
        blocks = draw.uniform(0, 255, (batch, -(-height // 8), -(-width // 8), 3))
        noise = draw.uniform(-40, 40, (batch, height, width, 3))
        images = blocks.repeat(8, 1).repeat(8, 2)[:, :height, :width] + noise
        yield np.clip(images, 0, 255).astype("float32")


def worst_difference(run: Callable, expected: Callable, sizes: Sequence[tuple[int, int, int]]) -> float:
    """The greatest difference between two functions' outputs for random images, as a part of the greatest output.

    Where outputs are integers, as classes after an argmax or NMS, a tenth of all outputs is left out.

    Args:
        run: float32 images (B, H, W, 3) to the outputs of the export.
        expected: the same images to the outputs of the network.
        sizes: (batch, height, width) of the images.

    Returns:
        The difference; NaN if an output is.

    Raises:
        RunError: if outputs have other shapes.
    """
    worst = []
    for images in random_images(sizes):
        differences, discrete = [], False
        for ours, theirs in zip(keras.tree.flatten(run(images)), keras.tree.flatten(expected(images)), strict=True):
            ours, theirs = keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs)
            if ours.shape != theirs.shape:
                raise RunError(f"Expected outputs of shape {theirs.shape} from the file, received {ours.shape}.")
            differences.append(np.abs(ours - theirs).ravel() / max(TINY, np.abs(theirs).max()))
            discrete |= np.issubdtype(theirs.dtype, np.integer)
        share = DISCRETE_SHARE if discrete else 1.0
        worst.append(np.quantile(np.concatenate(differences), share, method="lower"))
    return float(np.max(worst))


def refuse_difference(worst: float, name: str, form: str):
    """RunError if an export of the network `name` differs by more than the tolerance, or by what is not a number."""
    if not worst <= TOLERANCE:
        raise RunError(
            f"The {form} file of {name} gives other results than the network, by {worst:.2g} of the "
            f"greatest where {TOLERANCE:g} is allowed, so it isn't kept."
        )
