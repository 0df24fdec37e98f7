"""Training on JAX devices with `keras.distribution.DataParallel`: one program over the global batch.

Batch norm statistics, gradients, loss scale and metrics therefore cover the global batch without further reduction, and
one copy of a variable is its complete state. The input pipeline remains TensorFlow's, on the CPU.
"""

import atexit
import contextlib
import math
import os
import sys
from collections.abc import Iterator
from typing import Any

import jax
import keras
import numpy as np
from jax.experimental import multihost_utils

from keras_bot.errors import MisuseError, RunError, Terminated
from keras_bot.recipe import Recipe
from keras_bot.training.distributed.accumulate_jax import accumulate_in_jax_step
from keras_bot.training.distributed.cluster import Cluster
from keras_bot.training.distributed.strategy import PerReplicaValues, Strategy, match_replicas

LOST_WORKER_SECONDS = 30  # heartbeat and shutdown timeout after which a worker is considered lost


class JaxStrategy(Strategy):
    """Strategy for one JAX device, all devices of this worker, or all devices of all workers.

    Args:
        recipe: its `strategy` selects the devices.
        cluster: the workers, None for a single one.

    Raises:
        RunError: if the workers cannot connect.
    """

    def __init__(self, recipe: Recipe, cluster: Cluster | None = None) -> None:
        if cluster and cluster.workers > 1:
            _initialize(cluster)
            self.workers, self.worker = cluster.workers, cluster.index
        devices = _devices(recipe, cluster is not None)
        self.replicas = len(devices)
        self._distribution = None
        if self.replicas > 1:
            self._distribution = keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)

    def check(self, recipe: Recipe) -> None:  # noqa: D102
        super().check(recipe)
        if recipe.augment_on == "device":
            raise MisuseError("--augment_on=device is not supported on the JAX backend. Use --augment_on=host.")

    def scope(self) -> contextlib.AbstractContextManager:  # noqa: D102
        return self._distribution.scope() if self._distribution else contextlib.nullcontext()

    @contextlib.contextmanager
    def fitting(self) -> Iterator[None]:
        """Sets the distribution. A worker that fails does not wait for the others at exit."""
        try:
            with self.scope():
                yield
        except Exception as error:
            if self.workers > 1 and not isinstance(error, Terminated | MisuseError):  # raised on every worker
                _exit_immediately()
            raise

    @contextlib.contextmanager
    def outside_distribution(self) -> Iterator[None]:  # noqa: D102
        distribution = keras.distribution.distribution()
        keras.distribution.set_distribution(None)
        try:
            yield
        finally:
            keras.distribution.set_distribution(distribution)

    def use_jit(self, recipe: Recipe) -> bool:
        """Returns True unless the recipe sets jit_compile=off: JAX is slow without it."""
        return recipe.jit_compile != "off"

    def prepare_step(
        self, trainee: keras.Model, network: keras.Model, *, sync_bn: bool, accumulation_steps: int
    ) -> None:
        """Adds gradient accumulation. Batch norm is always synchronised, since the step sees the global batch."""
        accumulate_in_jax_step(trainee, accumulation_steps)

    def spread(self, batches: Any, replica_batch: int) -> Any:  # noqa: D102
        return batches

    def build_from_spec(self, trainee: keras.Model, batches: Any) -> None:  # noqa: D102
        with self.scope():
            trainee._symbolic_build(data_batch=keras.tree.map_structure(_to_keras_tensor, batches.element_spec))

    def sync_state(self, trainee: keras.Model) -> None:
        """Copies the values that Keras keeps in `trainee._jax_state` during an epoch to the variables."""
        trainee.jax_state_sync()

    def per_replica_values(self, variables: list[keras.Variable]) -> PerReplicaValues:  # noqa: D102
        return _JaxValues(variables)

    def sum_of_workers(self, value: np.ndarray | np.generic) -> np.ndarray:  # noqa: D102
        return np.sum(multihost_utils.process_allgather(value), axis=0, dtype=np.asarray(value).dtype)


def _initialize(cluster):
    """Initialises JAX's distributed runtime.

    `keras.distribution.initialize` supports neither timeouts nor, under SLURM, one worker with all devices of its host.
    """
    jax.config.update("jax_enable_preemption_service", False)  # it would handle SIGTERM itself
    try:
        jax.distributed.initialize(
            cluster.addresses[0],
            cluster.workers,
            cluster.index,
            cluster_detection_method="deactivate",
            heartbeat_timeout_seconds=LOST_WORKER_SECONDS,
            shutdown_timeout_seconds=LOST_WORKER_SECONDS,
        )
    except RuntimeError as error:
        raise RunError(f"JAX cannot connect the workers: {str(error).splitlines()[0][:300]}") from None


def _devices(recipe, in_cluster) -> list[str]:
    """Returns the names of the devices to use, of all workers, in DataParallel's format."""
    devices = keras.distribution.list_devices()
    automatic = recipe.strategy == "auto" or in_cluster
    several = jax.process_count() > 1 or (recipe.strategy == "mirrored" and not in_cluster)
    if several or (automatic and jax.default_backend() != "cpu"):
        return devices
    return devices[:1]


def _exit_immediately():
    """Registers an immediate exit for a failed worker.

    JAX would otherwise wait at exit for the other workers, which may be lost, and then abort.
    """

    def exit_now() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)

    atexit.register(exit_now)  # atexit calls the handler registered last first


def _to_keras_tensor(spec):
    return keras.KerasTensor(spec.shape, spec.dtype.name)


class _JaxValues(PerReplicaValues):
    """Metric state on JAX: one row, since the variables cover the global batch."""

    def __init__(self, variables: list[keras.Variable]) -> None:
        self._variables = variables

    def read(self) -> list[list[float]]:
        return [[float(element) for variable in self._variables for element in variable.numpy().reshape(-1)]]

    def write(self, values: list[list[float]]) -> None:
        ends = np.cumsum([math.prod(variable.shape) for variable in self._variables])
        flat_values = np.split(match_replicas(values, 1)[0], ends[:-1])
        for variable, value in zip(self._variables, flat_values, strict=True):
            variable.assign(value.reshape(variable.shape).astype(variable.dtype))
