"""One worker's rows of each global batch, chosen so that the workers together produce a single process's batches.

Mixup mixes a batch with its reversal. In training, a worker that has row i therefore also has row B - 1 - i. In
ascending order, reversing these rows pairs each with the same partner as in the whole batch.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_bot.errors import MisuseError


@dataclasses.dataclass(frozen=True)
class WorkerRows:
    """One worker's rows, as some of the equal pieces of a batch.

    Attributes:
        batch_size: B.
        piece: number of rows per piece; it divides B.
        pieces: indices of the worker's pieces, ascending.
    """

    batch_size: int
    piece: int
    pieces: tuple[int, ...]

    def __len__(self) -> int:
        return self.piece * len(self.pieces)

    @property
    def indices(self) -> np.ndarray:
        """The row indices, int64, ascending."""
        return np.concatenate([np.arange(piece * self.piece, (piece + 1) * self.piece) for piece in self.pieces])

    def keys(self, keys: tf.data.Dataset) -> tf.data.Dataset:
        """Filters whole-batch keys, starting at a batch boundary, to this worker's rows."""
        if len(self) == self.batch_size:
            return keys
        own = np.isin(np.arange(self.batch_size // self.piece), self.pieces)
        marked = tf.data.Dataset.zip(tf.data.Dataset.from_tensor_slices(own).repeat(), keys.batch(self.piece))
        # tf.data short-circuits functions that only return arguments: 0.4 us per key; a predicate per key costs 17 us.
        return marked.filter(lambda mine, _: mine).map(lambda _, part: part).unbatch()

    def draws(self, draws: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
        """Returns these rows of the random draws for a whole batch, tensors (B, …)."""
        if len(self) == self.batch_size:
            return draws
        return tuple(tf.gather(part, self.indices) for part in draws)

    def with_last(self, batches: tf.data.Dataset, size: int) -> tf.data.Dataset:
        """Pads one pass of this worker's batches to the number of global batches.

        An empty batch is appended if the data set ends before these rows of the last batch.

        Args:
            batches: this worker's batches, from `guarded_batches`.
            size: number of records of the pass.
        """
        if (size - 1) % self.batch_size >= self.pieces[0] * self.piece:
            return batches
        none = tf.nest.map_structure(lambda spec: tf.zeros([0, *spec.shape[1:]], spec.dtype), batches.element_spec)
        return batches.concatenate(tf.data.Dataset.from_tensors(none))


def training_rows(batch_size: int, worker: int, workers: int) -> WorkerRows:
    """Returns worker w's rows of a training batch: w h … (w + 1) h - 1, with h = B / 2 / workers, and the mirror rows.

    Raises:
        MisuseError: `worker` is out of range, or there are several workers and B is not divisible by 2 * workers.
    """
    _check_worker(worker, workers)
    if workers == 1:
        return WorkerRows(batch_size, batch_size, (0,))
    if batch_size % (2 * workers):
        raise MisuseError(
            f"batch_size={batch_size} is not divisible by {2 * workers} (2 x {workers} workers, as mixup pairs its "
            f"rows). It is the batch of all workers together: use a multiple of {2 * workers}, or another number of "
            "workers."
        )
    return WorkerRows(batch_size, batch_size // 2 // workers, (worker, 2 * workers - 1 - worker))


def eval_rows(batch_size: int, worker: int, workers: int) -> WorkerRows:
    """Returns worker w's rows of an evaluation batch: w b … (w + 1) b - 1, with b = B / workers.

    Raises:
        MisuseError: `worker` is out of range, or B is not divisible by `workers`.
    """
    _check_worker(worker, workers)
    if batch_size % workers:
        raise MisuseError(
            f"batch_size={batch_size} is not divisible by the {workers} workers. It is the batch of all workers "
            f"together: use a multiple of {workers}, or another number of workers."
        )
    return WorkerRows(batch_size, batch_size // workers, (worker,))


def _check_worker(worker: int, workers: int) -> None:
    if not all(isinstance(x, int | np.integer) for x in (worker, workers)) or not 0 <= worker < workers:
        raise MisuseError(
            f"worker and workers must be whole numbers with 0 <= worker < workers, received {worker!r} and {workers!r}."
        )
