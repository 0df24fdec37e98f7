"""Training on TensorFlow devices, with the workarounds that Keras 3 needs for several of them."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.tensorflow import trainer as keras_trainer

from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe
from keras_bot.training.distributed.accumulate import accumulate_in_step
from keras_bot.training.distributed.cluster import Cluster
from keras_bot.training.distributed.strategy import PerReplicaValues, Strategy, match_replicas
from keras_bot.training.fused_batch_norm import average_moving_statistics_in_step, fuse_batch_norm
from keras_bot.training.strided_convolutions import subsample_before_convolving


class TensorFlowStrategy(Strategy):
    """A `tf.distribute` strategy: the default one for one device, mirrored, or multi-worker mirrored.

    Args:
        recipe: its `strategy` selects one.
        cluster: the workers, None for a single one.

    Raises:
        RunError: if the workers cannot connect.
    """

    def __init__(self, recipe: Recipe, cluster: Cluster | None = None) -> None:
        if cluster and cluster.workers > 1:
            self._tf_strategy = _several_workers()
            self.workers, self.worker = cluster.workers, cluster.index
        else:
            self._tf_strategy = _one_worker(recipe, cluster is not None)
        self.replicas = self._tf_strategy.num_replicas_in_sync
        self._sum_functions: dict[np.dtype, Callable] = {}  # one per dtype, for any length, so that each is traced once

    def check(self, recipe: Recipe) -> None:  # noqa: D102
        super().check(recipe)
        check_replicas(recipe, self.replicas)

    def scope(self) -> contextlib.AbstractContextManager:  # noqa: D102
        return self._tf_strategy.scope()

    @contextlib.contextmanager
    def fitting(self) -> Iterator[None]:
        """Patches the mean of the logs over replicas if there are several workers.

        Keras reduces along an axis that scalars lack (keras issue 20585).
        """
        if self.workers == 1:
            yield
            return
        original = keras_trainer.reduce_per_replica

        def reduce_per_replica(values, strategy, reduction):
            if reduction not in ("auto", "mean"):
                return original(values, strategy, reduction)
            return keras.tree.map_structure(lambda value: strategy.reduce("MEAN", value, axis=None), values)

        keras_trainer.reduce_per_replica = reduce_per_replica
        try:
            yield
        finally:
            keras_trainer.reduce_per_replica = original

    def use_jit(self, recipe: Recipe) -> bool:
        """Returns the recipe's setting; `auto` enables XLA on a single GPU only.

        On CPUs, XLA's convolutions are slower than oneDNN's (BUILD_NOTES.md). XLA needs a single-device program, which
        a step over several replicas is not (keras issue 21366).
        """
        if recipe.jit_compile == "auto":
            return bool(tf.config.list_logical_devices("GPU")) and self.replicas == 1
        return recipe.jit_compile == "on"

    def prepare_step(  # noqa: D102
        self, trainee: keras.Model, network: keras.Model, *, sync_bn: bool, accumulation_steps: int
    ) -> None:
        fuse_batch_norm(network, synchronized=sync_bn)
        subsample_before_convolving(network)
        accumulate_in_step(trainee, accumulation_steps)
        average_moving_statistics_in_step(trainee, network)

    def spread(  # noqa: D102
        self, batches: tf.data.Dataset, replica_batch: int
    ) -> tf.data.Dataset | tf.distribute.DistributedDataset:
        if self.workers == 1:
            return batches
        return self._tf_strategy.distribute_datasets_from_function(lambda context: batches.rebatch(replica_batch))

    def build_from_spec(self, trainee: keras.Model, batches: tf.data.Dataset) -> None:
        """Builds loss and metrics. Disables Keras' own build, whose mean over replicas fails (keras issue 20585)."""
        with self.scope():
            trainee._symbolic_build(data_batch=batches.element_spec)
        trainee._maybe_symbolic_build = lambda **_: None

    def per_replica_values(self, variables: list[keras.Variable]) -> PerReplicaValues:  # noqa: D102
        return _TensorFlowValues(self._tf_strategy, variables)

    def sum_of_workers(self, value: np.ndarray | np.generic) -> np.ndarray:  # noqa: D102
        value = np.asarray(value)
        if value.dtype not in self._sum_functions:
            self._sum_functions[value.dtype] = tf.function(
                lambda flat: self._tf_strategy.reduce("SUM", self._tf_strategy.run(self._addend, (flat,)), axis=None),
                input_signature=[tf.TensorSpec([None], value.dtype)],
            )
        return self._sum_functions[value.dtype](value.reshape(-1)).numpy().reshape(value.shape)

    def _addend(self, value):
        """Returns the value on the first replica of each worker and zeros on the others."""
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        is_first = replica % (self.replicas // self.workers) == 0
        return tf.where(is_first, value, tf.zeros_like(value))


def _several_workers():
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, tf.errors.OpError) as error:
        raise RunError(f"TensorFlow cannot connect the workers: {str(error).splitlines()[0][:300]}") from None


def _one_worker(recipe, in_cluster):
    gpus = tf.config.list_logical_devices("GPU")
    automatic = recipe.strategy == "auto" or in_cluster
    if recipe.strategy == "one_device" or (automatic and len(gpus) < 2):
        return tf.distribute.get_strategy()
    return mirrored_strategy(tuple(device.name for device in gpus or tf.config.list_logical_devices("CPU")))


@functools.cache
def mirrored_strategy(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    """Returns this process's only MirroredStrategy for these devices.

    Each strategy numbers its collectives from the same start, and TensorFlow confuses those of two strategies: after
    training on one, a step of the other can fail with a shape mismatch.
    """
    return tf.distribute.MirroredStrategy(list(devices))


def check_replicas(recipe: Recipe, replicas: int) -> None:
    """Raises MisuseError for several replicas with jit_compile=on, or with both sync_bn and accumulation_steps."""
    if replicas > 1 and recipe.jit_compile == "on":
        raise MisuseError(
            f"--jit_compile=on works on one replica only, but there are {replicas}. Use --jit_compile=auto or off."
        )
    if replicas > 1 and recipe.sync_bn and recipe.accumulation_steps > 1:
        raise MisuseError(
            f"--sync_bn does not support --accumulation_steps={recipe.accumulation_steps} on {replicas} replicas. "
            "Drop one of the two flags."
        )


class _TensorFlowValues(PerReplicaValues):
    def __init__(self, strategy: tf.distribute.Strategy, variables: list[keras.Variable]) -> None:
        self._strategy = strategy
        self._variables = variables
        self._read = tf.function(lambda: strategy.gather(strategy.run(self._flatten), axis=0))
        self._write = tf.function(lambda values: strategy.run(self._assign, (values,)))

    def read(self) -> list[list[float]]:
        return self._read().numpy().tolist()

    def write(self, values: list[list[float]]) -> None:
        self._write(tf.constant(match_replicas(values, self._strategy.num_replicas_in_sync)))

    def _flatten(self):
        """Returns all elements of this replica's variables, (1, elements)."""
        return tf.concat([tf.reshape(tf.cast(v.value, tf.float64), [-1]) for v in self._variables], 0)[None]

    def _assign(self, values):
        """Assigns this replica's row of the values, (replicas, elements), to its variables."""
        row = values[tf.distribute.get_replica_context().replica_id_in_sync_group]
        flat_values = tf.split(row, [math.prod(variable.shape) for variable in self._variables])
        for variable, value in zip(self._variables, flat_values, strict=True):
            variable.value.assign(tf.cast(tf.reshape(value, variable.shape), variable.dtype))
