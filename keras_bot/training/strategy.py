"""On which devices a run computes: what all backends have in common.

One replica is one device; a worker is a process with its replicas. Each step is over the batch of all replicas
together, and after each step all replicas hold the same variables, so one copy of them is the state of the run.
"""

import abc
import contextlib
import json
import math

import keras
import numpy as np

from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.training.meeting import tell_differences


class Strategy(abc.ABC):
    """The replicas of a run, and what the workers tell each other.

    Where every worker must do the same at the same point, it says so: one that doesn't leaves the others waiting.

    Attributes:
        replicas: devices, of all workers together.
        workers: processes.
        worker: which of them this is; 0 is the chief, who alone reads and writes the run directory.
    """

    replicas: int
    workers: int = 1
    worker: int = 0

    def check(self, recipe: Recipe):
        """MisuseError if the replicas can't share the recipe's batch, or can't do what it asks for."""
        check_batch(recipe, self.replicas, self.workers)

    @abc.abstractmethod
    def scope(self) -> contextlib.AbstractContextManager:
        """In it network and optimizer are made, on every worker."""

    @abc.abstractmethod
    def fitting(self) -> contextlib.AbstractContextManager:
        """Around `fit` and `evaluate`, on every worker."""

    def apart(self) -> contextlib.AbstractContextManager:
        """In it this worker makes networks of its own, within `fitting` too."""
        return contextlib.nullcontext()

    @abc.abstractmethod
    def use_jit(self, recipe: Recipe) -> bool:
        """Whether to compile the step with XLA."""

    @abc.abstractmethod
    def prepare_step(self, trainee: keras.Model, model: keras.Model, *, synchronised: bool, parts: int):
        """Makes the training step of a compiled model what it should be on these replicas, in this process only.

        Args:
            trainee: is fitted; `model` or a Distiller around it.
            model: the network.
            synchronised: batch norm takes its statistics over the batches of all replicas.
            parts: into how many a replica's batch is divided, see `accumulate.py`.
        """

    @abc.abstractmethod
    def spread(self, batches, replica_batch: int):
        """What `fit` takes, of a tf.data.Dataset with all rows of a step, or of several workers this one's."""

    @abc.abstractmethod
    def build_from_spec(self, trainee: keras.Model, batches):
        """Builds loss and metrics from the form of a replica's evaluation batch: images, labels and weights.

        Keras would draw a batch for it, which isn't what the network takes when the training step augments it.
        """

    def settle(self, trainee: keras.Model):  # noqa: B027, most backends have nothing to do
        """Between two steps of `fit`: sees to it that the variables have their values."""

    @abc.abstractmethod
    def parts(self, variables: list[keras.Variable]) -> "Parts":
        """Of variables that add up over replicas, such as a metric's, each replica's part."""

    @abc.abstractmethod
    def sum_of_workers(self, value: np.ndarray) -> np.ndarray:
        """The sum of the workers' values; every worker must ask at the same point."""

    def any_worker(self, flag: bool) -> bool:
        """Whether a flag is up on any worker; every worker must ask at the same point."""
        return flag if self.workers == 1 else bool(self.sum_of_workers(np.float32(flag)))

    def tell_all(self, message: bytes, teller: int = 0) -> bytes:
        """One worker's message, the chief's unless said, on every worker; every worker must ask at the same point."""
        if self.workers == 1:
            return message
        mine = np.frombuffer(message if self.worker == teller else b"", np.uint8).astype(np.int32)
        padded = np.zeros([int(self.sum_of_workers(np.int32(mine.size)))], np.int32)
        padded[: mine.size] = mine
        return self.sum_of_workers(padded).astype(np.uint8).tobytes()

    def restore(self, variables: dict[str, keras.Variable], arrays: dict[str, np.ndarray]):
        """Puts the chief's arrays into every worker's variables; every worker must ask at the same point.

        Args:
            variables: by name; the same names in the same order everywhere.
            arrays: by name, on the chief.
        """
        for name, variable in variables.items():
            if self.workers == 1:
                variable.assign(arrays[name])
            else:
                mine = arrays[name] if self.worker == 0 else np.zeros_like(keras.ops.convert_to_numpy(variable))
                variable.assign(self.sum_of_workers(mine))

    def check_same_data(self, dataset: dict[str, str]):
        """MisuseError on every worker if what is told of the data set isn't the same on all of them."""
        if self.workers == 1:
            return
        facts = [json.loads(self.tell_all(json.dumps(dataset).encode(), teller)) for teller in range(self.workers)]
        if differences := tell_differences(facts, "data"):
            raise MisuseError(f"{differences} Give all of them one data set.")


class Parts(abc.ABC):
    """Each replica's own values of variables."""

    @abc.abstractmethod
    def read(self) -> list[list[float]]:
        """A list a replica of all their elements in order; every worker must ask at the same point."""

    @abc.abstractmethod
    def write(self, parts: list[list[float]]):
        """Puts back what `read` gave; on another number of replicas the first one takes all."""


def fitting_parts(parts: list[list[float]], replicas: int) -> np.ndarray:
    """What `Parts.read` gave, as float64 (replicas, elements): as it was, or all of it in the first row."""
    values = np.asarray(parts, np.float64)
    if len(values) == replicas:
        return values
    return np.pad(values.sum(0, keepdims=True), ((0, replicas - 1), (0, 0)))


def check_batch(recipe: Recipe, replicas: int, workers: int):
    """MisuseError if the recipe's batch can't be divided among replicas of so many workers in all."""
    # A worker takes the rows of a batch in mirrored pairs, for mixup.
    unit = math.lcm(replicas * recipe.accumulate, 2 * workers if workers > 1 else 1)
    if recipe.batch_size % unit:
        shared = f"{replicas} replicas can share equally" if replicas > 1 else "divides"
        parts = f", in {recipe.accumulate} parts" if recipe.accumulate > 1 else ""
        pairs = f", by {workers} workers in pairs of images" if workers > 1 else ""
        raise MisuseError(
            f"Expected a batch_size that {shared}{parts}{pairs}: a multiple of {unit}; "
            f"received {recipe.batch_size}. Try {max(1, round(recipe.batch_size / unit)) * unit}."
        )
