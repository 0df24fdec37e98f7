"""One worker's rows of each global batch, chosen so that the workers' batches together are the one process's.

Mixup mixes a batch with its reversal. So in training a worker has with each row i also the row B - 1 - i; in ascending
order these rows, reversed, meet the same partners as in the whole batch.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_bot.errors import MisuseError


@dataclasses.dataclass(frozen=True)
class WorkerRows:
    """Some of the equal pieces into which a batch is cut.

    Attributes:
        batch_size: B.
        piece: rows of a piece; it divides B.
        pieces: the numbers of the worker's pieces, ascending.
    """

    batch_size: int
    piece: int
    pieces: tuple[int, ...]

    def __len__(self) -> int:
        return self.piece * len(self.pieces)

    @property
    def indices(self) -> np.ndarray:
        """The rows, int64, ascending."""
        return np.concatenate([np.arange(piece * self.piece, (piece + 1) * self.piece) for piece in self.pieces])

    def keys(self, keys: tf.data.Dataset) -> tf.data.Dataset:
        """Of the keys of whole batches, from the beginning of one on, those in these rows; the same if it is all."""
        if len(self) == self.batch_size:
            return keys
        own = np.isin(np.arange(self.batch_size // self.piece), self.pieces)
        marked = tf.data.Dataset.zip(tf.data.Dataset.from_tensor_slices(own).repeat(), keys.batch(self.piece))
        # No function is called here, as arguments are only handed on: 0.4 us a key; a predicate of each costs 17.
        return marked.filter(lambda mine, _: mine).map(lambda _, part: part).unbatch()

    def draws(self, draws: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
        """These rows of what was drawn for a whole batch, tensors (B, …)."""
        if len(self) == self.batch_size:
            return draws
        return tuple(tf.gather(part, self.indices) for part in draws)

    def with_last(self, batches: tf.data.Dataset, size: int) -> tf.data.Dataset:
        """A pass over `size` records in these rows' batches, `guarded_batches`: as many as there are whole ones.

        The last holds nothing where the set ends before these rows begin.
        """
        if (size - 1) % self.batch_size >= self.pieces[0] * self.piece:
            return batches
        none = tf.nest.map_structure(lambda spec: tf.zeros([0, *spec.shape[1:]], spec.dtype), batches.element_spec)
        return batches.concatenate(tf.data.Dataset.from_tensors(none))


def training_rows(batch_size: int, worker: int, workers: int) -> WorkerRows:
    """The worker's rows of a training batch: w h … (w + 1) h - 1, with h = B / 2 / workers, and their mirror images.

    Raises:
        MisuseError: it is none of the workers, or 2 * workers doesn't divide B.
    """
    _check_worker(worker, workers)
    if workers == 1:
        return WorkerRows(batch_size, batch_size, (0,))
    if batch_size % (2 * workers):
        raise MisuseError(
            f"Expected a batch_size that 2 x {workers} divides, as mixup pairs the rows of a batch shared by {workers} "
            f"workers, received {batch_size}. It is the batch of all workers together: change it, or their number."
        )
    return WorkerRows(batch_size, batch_size // 2 // workers, (worker, 2 * workers - 1 - worker))


def eval_rows(batch_size: int, worker: int, workers: int) -> WorkerRows:
    """The worker's rows of an evaluation batch: w b … (w + 1) b - 1, with b = B / workers.

    Raises:
        MisuseError: it is none of the workers, or their number doesn't divide B.
    """
    _check_worker(worker, workers)
    if batch_size % workers:
        raise MisuseError(
            f"Expected a batch_size that the {workers} workers divide, received {batch_size}. It is the batch of all "
            "workers together: change it, or their number."
        )
    return WorkerRows(batch_size, batch_size // workers, (worker,))


def _check_worker(worker: int, workers: int) -> None:
    if not all(isinstance(x, int | np.integer) for x in (worker, workers)) or not 0 <= worker < workers:
        raise MisuseError(f"Expected whole numbers 0 <= worker < workers, received {worker!r} and {workers!r}.")
