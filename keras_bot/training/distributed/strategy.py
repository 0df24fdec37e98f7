"""Base classes of the device strategies, shared by all backends.

A replica is one device; a worker is a process with its replicas. Each step uses the global batch of all replicas, and
after it all replicas have the same variables, so one copy of them is the state of the run.
"""

import abc
import contextlib
import json
import math
from typing import Any

import keras
import numpy as np

from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.training.distributed.rendezvous import describe_differences


class Strategy(abc.ABC):
    """Replicas of a run, and communication between its workers.

    Methods documented as "on every worker" are collective: a worker that skips one blocks the others.

    Attributes:
        replicas: number of devices of all workers.
        workers: number of processes.
        worker: index of this process; 0 is the chief, which alone reads and writes the run directory.
    """

    replicas: int
    workers: int = 1
    worker: int = 0

    def check(self, recipe: Recipe) -> None:
        """Raises MisuseError if the replicas cannot share the recipe's batch or don't support its options."""
        check_batch(recipe, self.replicas, self.workers)

    @abc.abstractmethod
    def scope(self) -> contextlib.AbstractContextManager:
        """Returns the context in which to create network and optimizer, on every worker."""

    @abc.abstractmethod
    def fitting(self) -> contextlib.AbstractContextManager:
        """Returns the context for `fit` and `evaluate`, on every worker."""

    def outside_distribution(self) -> contextlib.AbstractContextManager:
        """Returns a context in which this worker can create networks of its own, also inside `fitting`."""
        return contextlib.nullcontext()

    @abc.abstractmethod
    def use_jit(self, recipe: Recipe) -> bool:
        """Returns whether to compile the step with XLA."""

    @abc.abstractmethod
    def prepare_step(
        self, trainee: keras.Model, network: keras.Model, *, sync_bn: bool, accumulation_steps: int
    ) -> None:
        """Patches the training step of a compiled model for these replicas, in this process only.

        Args:
            trainee: the model to fit: `network` or a DistillationModel around it.
            network: the network.
            sync_bn: compute batch norm statistics over the batches of all replicas.
            accumulation_steps: number of micro-batches per replica batch, see `accumulate.py`.
        """

    @abc.abstractmethod
    def spread(self, batches: Any, replica_batch: int) -> Any:
        """Returns the input of `fit`, made from a tf.data.Dataset of this worker's rows of each global batch."""

    @abc.abstractmethod
    def build_from_spec(self, trainee: keras.Model, batches: Any) -> None:
        """Builds loss and metrics from the element spec of a replica's evaluation batches: images, labels and weights.

        Keras would draw a training batch, which is not the network's input if the training step augments it.
        """

    def sync_state(self, trainee: keras.Model) -> None:  # noqa: B027, most backends have nothing to do
        """Updates the variables to their current values, between two steps of `fit`."""

    @abc.abstractmethod
    def per_replica_values(self, variables: list[keras.Variable]) -> "PerReplicaValues":
        """Returns the per-replica values of sum-aggregated variables, such as a metric's."""

    @abc.abstractmethod
    def sum_of_workers(self, value: np.ndarray | np.generic) -> np.ndarray:
        """Returns the sum of the workers' values. Call it on every worker."""

    def any_worker(self, flag: bool) -> bool:
        """Returns whether `flag` is set on any worker. Call it on every worker."""
        return flag if self.workers == 1 else bool(self.sum_of_workers(np.float32(flag)))

    def broadcast(self, message: bytes, source: int = 0) -> bytes:
        """Broadcasts the message of worker `source`, by default the chief. Call it on every worker."""
        if self.workers == 1:
            return message
        local = np.frombuffer(message if self.worker == source else b"", np.uint8).astype(np.int32)
        padded = np.zeros([int(self.sum_of_workers(np.int32(local.size)))], np.int32)
        padded[: local.size] = local
        return self.sum_of_workers(padded).astype(np.uint8).tobytes()

    def restore(self, variables: dict[str, keras.Variable], arrays: dict[str, np.ndarray]) -> None:
        """Assigns the chief's arrays to every worker's variables. Call it on every worker.

        Args:
            variables: variables by name; the same names in the same order on every worker.
            arrays: arrays by name; needed only on the chief.
        """
        for name, variable in variables.items():
            if self.workers == 1:
                variable.assign(arrays[name])
            else:
                local = arrays[name] if self.worker == 0 else np.zeros_like(keras.ops.convert_to_numpy(variable))
                variable.assign(self.sum_of_workers(local))

    def check_same_data(self, dataset: dict[str, str]) -> None:
        """Raises MisuseError on every worker if `dataset` is not the same on all of them."""
        if self.workers == 1:
            return
        facts = [json.loads(self.broadcast(json.dumps(dataset).encode(), worker)) for worker in range(self.workers)]
        if differences := describe_differences(facts, "data set"):
            raise MisuseError(f"{differences} Use the same data on all workers.")


class PerReplicaValues(abc.ABC):
    """Per-replica values of sum-aggregated variables."""

    @abc.abstractmethod
    def read(self) -> list[list[float]]:
        """Returns one list per replica, with all elements in order. Call it on every worker."""

    @abc.abstractmethod
    def write(self, values: list[list[float]]) -> None:
        """Restores values from `read`. If the number of replicas differs, the first one gets the sums."""


def match_replicas(values: list[list[float]], replicas: int) -> np.ndarray:
    """Converts the result of `PerReplicaValues.read` to float64 (replicas, elements).

    If it was read from another number of replicas, row 0 has the sums and the others are 0.
    """
    array = np.asarray(values, np.float64)
    if len(array) == replicas:
        return array
    return np.pad(array.sum(0, keepdims=True), ((0, replicas - 1), (0, 0)))


def check_batch(recipe: Recipe, replicas: int, workers: int) -> None:
    """Raises MisuseError if the batch cannot be divided among all `replicas` and among the `workers`."""
    # For mixup, each worker takes mirrored pairs of a batch's rows.
    divisor = math.lcm(replicas * recipe.accumulation_steps, 2 * workers if workers > 1 else 1)
    if recipe.batch_size % divisor:
        replica_count = [f"{replicas} replicas"] if replicas > 1 else []
        steps = [f"accumulation_steps {recipe.accumulation_steps}"] if recipe.accumulation_steps > 1 else []
        pairs = [f"pairs of images on {workers} workers"] if workers > 1 else []
        reason = ", ".join([" x ".join(replica_count + steps), *pairs])
        raise MisuseError(
            f"--batch_size={recipe.batch_size} is not divisible by {divisor} ({reason}). Use a multiple of {divisor}, "
            f"such as {max(1, round(recipe.batch_size / divisor)) * divisor}."
        )
