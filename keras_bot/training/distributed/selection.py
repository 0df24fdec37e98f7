"""Selection of the strategy for the active Keras backend."""

import keras

from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.training.distributed.cluster import Cluster
from keras_bot.training.distributed.strategy import Strategy


def build_strategy(recipe: Recipe, cluster: Cluster | None = None) -> Strategy:
    """Builds the strategy: one device, one replica per GPU (per CPU device if there is none), or several workers.

    Raises:
        MisuseError: if the batch cannot be divided among the replicas, they do not support an option of the recipe, or
            the backend is neither TensorFlow nor JAX.
        RunError: if the workers cannot be connected.
    """
    backend = keras.backend.backend()
    strategy: Strategy
    if backend == "tensorflow":
        from keras_bot.training.distributed.on_tensorflow import TensorFlowStrategy

        strategy = TensorFlowStrategy(recipe, cluster)
    elif backend == "jax":
        from keras_bot.training.distributed.on_jax import JaxStrategy

        strategy = JaxStrategy(recipe, cluster)
    else:
        raise MisuseError(f"Training needs the TensorFlow or JAX backend, but Keras uses {backend}. Set KERAS_BACKEND.")
    strategy.check(recipe)
    return strategy
