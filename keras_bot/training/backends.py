"""The strategy of the backend that Keras runs on."""

import keras

from keras_bot.errors import MisuseError
from keras_bot.recipe import Recipe
from keras_bot.training.cluster import Cluster
from keras_bot.training.strategy import Strategy


def build_strategy(recipe: Recipe, cluster: Cluster | None = None) -> Strategy:
    """One device; one replica a GPU (where there is none, a CPU device); or such on each of several workers.

    Raises:
        MisuseError: if the batch can't be divided among the replicas, they can't do what the recipe asks for, or
            Keras runs on another backend.
        RunError: if the workers can't be brought together.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from keras_bot.training.on_tensorflow import TensorFlowStrategy as Chosen
    elif backend == "jax":
        from keras_bot.training.on_jax import JaxStrategy as Chosen
    else:
        raise MisuseError(f"Expected Keras on TensorFlow or JAX to train, received {backend}. Set KERAS_BACKEND.")
    strategy = Chosen(recipe, cluster)
    strategy.check(recipe)
    return strategy
