"""On which devices a run computes, and what Keras 3 needs mended for several of them, in this one place.

One replica is one device; a worker is a process with its replicas. Each step is over the batch of all replicas
together, and after each step all replicas hold the same variables, so one copy of them is the state of the run.
"""

import contextlib
import functools
import json
import math
import os

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.tensorflow import trainer as keras_trainer

from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe
from keras_bot.training.cluster import Cluster, meet, read_cluster

MEETING_SECONDS = 300.0


def find_cluster(recipe: Recipe) -> Cluster | None:
    """The workers that TF_CONFIG names, None if the recipe asks for one or there are none.

    Raises:
        MisuseError: if TF_CONFIG can't be used.
    """
    wanted = recipe.strategy == "multi_worker" or (recipe.strategy == "auto" and "TF_CONFIG" in os.environ)
    return read_cluster() if wanted else None


def meet_workers(cluster: Cluster | None, facts: dict[str, str]):
    """Waits for the other workers, if any, and compares facts with them. Before TensorFlow starts.

    KERAS_BOT_MEETING_SECONDS in the environment says how long to wait.

    Raises:
        MisuseError: if workers differ in their facts.
        RunError: if a worker doesn't come.
    """
    if cluster and cluster.workers > 1:
        meet(cluster, facts, float(os.environ.get("KERAS_BOT_MEETING_SECONDS", MEETING_SECONDS)))


def build_strategy(recipe: Recipe, cluster: Cluster | None = None) -> tf.distribute.Strategy:
    """One device; one replica a GPU (a logical CPU where there is no GPU); or such on each of several workers.

    Raises:
        MisuseError: if the batch can't be divided among the replicas, or they can't do what the recipe asks for.
    """
    strategy = _several_workers() if cluster and cluster.workers > 1 else _one_worker(recipe, cluster is not None)
    _check(recipe, strategy.num_replicas_in_sync, workers_of(strategy))
    return strategy


def _several_workers():
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, tf.errors.OpError) as error:
        raise RunError(f"TensorFlow can't bring the workers together: {str(error).splitlines()[0][:300]}") from None


def _one_worker(recipe, in_cluster):
    gpus = tf.config.list_logical_devices("GPU")
    automatic = recipe.strategy == "auto" or in_cluster
    if recipe.strategy == "one_device" or (automatic and len(gpus) < 2):
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in gpus or tf.config.list_logical_devices("CPU")])


def _check(recipe, replicas, workers):
    # A worker takes the rows of a batch in mirrored pairs, for mixup.
    unit = math.lcm(replicas * recipe.accumulate, 2 * workers if workers > 1 else 1)
    if recipe.batch_size % unit:
        parts = f" in {recipe.accumulate} parts each" if recipe.accumulate > 1 else ""
        raise MisuseError(
            f"Expected a batch_size that {replicas} replicas{parts} can share equally, a multiple of {unit}, "
            f"received {recipe.batch_size}. Try {max(1, round(recipe.batch_size / unit)) * unit}."
        )
    if replicas > 1 and recipe.jit == "on":
        raise MisuseError(
            f"Expected --jit=auto or off for {replicas} replicas, received on: XLA compiles for one device."
        )
    if replicas > 1 and recipe.sync_bn and recipe.accumulate > 1:
        raise MisuseError(
            f"Expected --sync_bn or --accumulate on {replicas} replicas, received both: statistics are "
            "taken over the replicas or in parts. Drop one."
        )


def workers_of(strategy: tf.distribute.Strategy) -> int:
    """How many processes train together."""
    return read_cluster().workers if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) else 1


def worker_of(strategy: tf.distribute.Strategy) -> int:
    """Which of them this is; 0 is the chief, who alone reads and writes the run directory."""
    return read_cluster().index if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) else 0


def use_jit(recipe: Recipe, strategy: tf.distribute.Strategy) -> bool:
    """Whether to compile the step with XLA.

    `auto` says yes on a single GPU only: on a CPU XLA's convolutions are slower than oneDNN's (BUILD_NOTES.md), and
    a step over several replicas is no program for one device (keras issue 21366).
    """
    if recipe.jit == "auto":
        return bool(tf.config.list_logical_devices("GPU")) and strategy.num_replicas_in_sync == 1
    return recipe.jit == "on"


def spread(strategy: tf.distribute.Strategy, batches: tf.data.Dataset, replica_batch: int):
    """What `fit` takes: the batches themselves, or, of several workers, this worker's rows for its replicas.

    Args:
        strategy: the run's.
        batches: of all rows where there is one worker, of this worker's own otherwise.
        replica_batch: rows of one replica.
    """
    if workers_of(strategy) == 1:
        return batches
    return strategy.distribute_datasets_from_function(lambda context: batches.rebatch(replica_batch))


def build_from_spec(trainee: keras.Model, batches: tf.data.Dataset, strategy: tf.distribute.Strategy):
    """Builds loss and metrics from the form of an evaluation batch: images, labels and weights.

    Keras would draw a batch for it, which isn't what the network takes when the training step augments it, and average
    the replicas' parts of it, which fails for several workers (keras issue 20585).
    """
    with strategy.scope():
        trainee._symbolic_build(data_batch=batches.element_spec)
    trainee._maybe_symbolic_build = lambda **_: None


@contextlib.contextmanager
def mended_keras(strategy: tf.distribute.Strategy):
    """Around `fit` and `evaluate`: the mean of the logs over replicas, where there are several workers.

    Keras takes it along an axis that scalars lack (keras issue 20585).
    """
    if workers_of(strategy) == 1:
        yield
        return
    theirs = keras_trainer.reduce_per_replica

    def reduce_per_replica(values, strategy, reduction):
        if reduction not in ("auto", "mean"):
            return theirs(values, strategy, reduction)
        return keras.tree.map_structure(lambda value: strategy.reduce("MEAN", value, axis=None), values)

    keras_trainer.reduce_per_replica = reduce_per_replica
    try:
        yield
    finally:
        keras_trainer.reduce_per_replica = theirs


def any_worker(strategy: tf.distribute.Strategy, flag: bool) -> bool:
    """Whether a flag is up on any worker; every worker must ask at the same point."""
    if workers_of(strategy) == 1:
        return flag
    return bool(_sum(strategy, np.float32(flag)))


def tell_all(strategy: tf.distribute.Strategy, message: bytes) -> bytes:
    """The chief's message, on every worker."""
    if workers_of(strategy) == 1:
        return message
    mine = np.frombuffer(message if worker_of(strategy) == 0 else b"", np.uint8).astype(np.int32)
    length = int(_sum(strategy, np.int32(mine.size)))
    padded = np.zeros([length], np.int32)
    padded[: mine.size] = mine
    return _sum(strategy, padded).astype(np.uint8).tobytes()


def check_same_on_workers(strategy: tf.distribute.Strategy, dataset: dict):
    """MisuseError on every worker if the data set isn't the same on all of them: by its sizes and classes."""
    theirs = json.loads(tell_all(strategy, json.dumps(dataset).encode()))
    differing = [fact for fact, value in dataset.items() if fact != "name" and value != theirs[fact]]
    if not any_worker(strategy, bool(differing)):
        return
    told = {fact: (theirs[fact], dataset[fact]) for fact in differing if fact != "class_names"}
    changes = [f"{fact} are {first} on worker 0 and {here} here" for fact, (first, here) in told.items()]
    changes += ["the classes are others than on worker 0"] if "class_names" in differing else []
    told = "; ".join(changes) or "another worker has other data than this one"
    raise MisuseError(f"Expected the same data on every worker: {told}. Give all of them one data set.")


def copy_chief(strategy: tf.distribute.Strategy, variables: list[keras.Variable]):
    """Gives every worker the chief's values of variables."""
    if workers_of(strategy) == 1:
        return
    for variable in variables:
        value = keras.ops.convert_to_numpy(variable)
        variable.assign(_sum(strategy, value if worker_of(strategy) == 0 else np.zeros_like(value)))


def _sum(strategy, value):
    """The sum over workers, each counted once."""
    return _summation(strategy)(tf.constant(value)).numpy()


@functools.cache
def _summation(strategy):
    local = strategy.num_replicas_in_sync // workers_of(strategy)

    def contribute(value):
        first = tf.distribute.get_replica_context().replica_id_in_sync_group % local == 0
        return tf.where(first, value, tf.zeros_like(value))

    return tf.function(lambda value: strategy.reduce("SUM", strategy.run(contribute, (value,)), axis=None))


class Parts:
    """Each replica's own value of scalar variables that add up over replicas, as a metric's do.

    Args:
        strategy: the run's.
        variables: made in its scope.
    """

    def __init__(self, strategy: tf.distribute.Strategy, variables: list[keras.Variable]):
        self._strategy = strategy
        self._variables = variables
        self._read = tf.function(lambda: strategy.gather(strategy.run(self._own), axis=0))
        self._write = tf.function(lambda values: strategy.run(self._take, (values,)))

    def read(self) -> list[list[float]]:
        """A list a replica, in the order of the variables; every worker must ask at the same point."""
        return self._read().numpy().tolist()

    def write(self, parts: list[list[float]]):
        """Puts back what `read` gave; on another number of replicas the first one takes all."""
        values = np.asarray(parts, np.float32)
        replicas = self._strategy.num_replicas_in_sync
        if len(values) != replicas:
            values = np.pad(values.sum(0, keepdims=True), ((0, replicas - 1), (0, 0)))
        self._write(tf.constant(values))

    def _own(self):
        return tf.stack([tf.cast(variable.value, tf.float32) for variable in self._variables])[None]

    def _take(self, values):
        mine = values[tf.distribute.get_replica_context().replica_id_in_sync_group]
        for place, variable in enumerate(self._variables):
            variable.value.assign(tf.cast(mine[place], variable.dtype))
