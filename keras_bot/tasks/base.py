"""Interface between the trainer and a task: everything that differs between classification, detection, segmentation."""

import abc
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_bot import data
from keras_bot.recipe import Recipe
from keras_bot.training.distributed.strategy import Strategy


class Task(abc.ABC):
    """A task of the trainer. Instances have no state.

    Attributes:
        name: value of the recipe's `task`.
        metrics: names of the evaluation metrics, between 0 and 1, higher is better. The logs at the end of an epoch
            contain them with the prefix "val_". The first one selects the best network.
    """

    name: str
    metrics: tuple[str, ...]

    @abc.abstractmethod
    def open_source(
        self, recipe: Recipe, split: str, strategy: Strategy | None = None, class_names: tuple[str, ...] = ()
    ) -> Any:
        """Opens the "train" or "eval" split of the recipe's data set.

        Args:
            recipe: the recipe.
            split: "train" or "eval".
            strategy: strategy of the run; None is one worker.
            class_names: if given, labels are indices into it, and other classes are an error.

        Returns:
            The records, with `name`, `size`, `num_classes`, `class_names` and `fingerprint()`.

        Raises:
            MisuseError: if the data set or the recipe cannot be used for this task.
        """

    @abc.abstractmethod
    def build_network(self, recipe: Recipe, source: Any) -> keras.Model:
        """Builds the network to train, whose variables are the state of the run, with initial and frozen weights."""

    def build_losses(self, source: Any) -> dict[str, Any]:
        """Returns loss and metrics as arguments of Keras' `compile`; {} if the trained model has its own."""
        return {}

    def build_step_transform(self, recipe: Recipe) -> Callable | None:
        """Returns the transform (images, labels, seed, epoch) to apply in the training step, None without one."""
        return None

    def load_teacher(self, recipe: Recipe, source: Any, strategy: Strategy) -> keras.Model | None:
        """Loads the distillation teacher, None without one."""
        return None

    def build_trainee(self, recipe: Recipe, network: keras.Model, teacher: keras.Model | None) -> keras.Model:
        """Returns the model that `fit` trains: the network or a model around it."""
        return network

    @abc.abstractmethod
    def training_data(
        self,
        recipe: Recipe,
        source: Any,
        corrupt: data.CorruptLog,
        strategy: Strategy | None = None,
        first_epoch: int = 0,
        first_step: int = 0,
    ) -> tf.data.Dataset:
        """Returns this worker's training batches, starting at the given epoch and step, both counted from 0."""

    @abc.abstractmethod
    def evaluation_data(
        self, recipe: Recipe, source: Any, corrupt: data.CorruptLog, strategy: Strategy | None = None
    ) -> tf.data.Dataset:
        """Returns this worker's evaluation batches with weights. Every image occurs once, on one worker."""

    def build_evaluator(self, recipe: Recipe, source: Any, corrupt: data.CorruptLog) -> keras.callbacks.Callback | None:
        """Returns a callback, called before the recorder, that evaluates or stores the results; None if not needed.

        Its `report(trainee, folder)` writes tables and pictures to the run directory.
        """
        return None

    @abc.abstractmethod
    def save(self, network: keras.Model, path: pathlib.Path) -> None:
        """Saves the portable float32 network, from images to results."""

    @abc.abstractmethod
    def evaluate(self, recipe: Recipe, path: pathlib.Path, source: Any, corrupt: data.CorruptLog) -> dict[str, Any]:
        """Evaluates a .keras file and returns the results, including `metrics`.

        Raises:
            MisuseError: if the file cannot be used, or its number of classes differs from that of the data.
        """
