"""Classification, the trainer's default task."""

import pathlib
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_bot import data, models
from keras_bot.errors import MisuseError, first_few
from keras_bot.model_files import load_network
from keras_bot.recipe import Recipe
from keras_bot.surgery import recast
from keras_bot.tasks.base import Task
from keras_bot.training import batches
from keras_bot.training.distillation.soft_targets import build_distillation_model, keep_teacher_targets
from keras_bot.training.distillation.targets import add_teacher_targets, check_cache
from keras_bot.training.distillation.teacher import load_teacher
from keras_bot.training.distributed.selection import build_strategy
from keras_bot.training.distributed.strategy import Strategy
from keras_bot.training.evaluate import build_losses, evaluate
from keras_bot.training.finetune import freeze, load_weights_from


class Classification(Task):
    """Classification with every trick of the paper. The pipeline returns labels as float (batch, classes)."""

    name = "classification"
    metrics = ("top1", "top5")

    def open_source(
        self, recipe: Recipe, split: str, strategy: Strategy | None = None, class_names: tuple[str, ...] = ()
    ) -> data.Source:
        """Opens a split of the recipe's data set; with file sharding, this worker's training shard."""
        context = None
        if strategy and recipe.shard_by == "file" and split == "train" and strategy.workers > 1:
            context = tf.distribute.InputContext(strategy.workers, strategy.worker, strategy.replicas)
        source = data.open_source(
            recipe.dataset,
            split,
            data_dir=recipe.data_dir or None,
            num_classes=recipe.num_classes,
            synthetic_images=recipe.synthetic_images,
            image_size=recipe.image_size,
            tfds_split=recipe.train_split if split == "train" else recipe.eval_split,
            first_label=recipe.first_label,
            read_config=tfds.ReadConfig(input_context=context) if context else None,
        )
        if class_names and source.class_names != class_names:
            trained, found = (
                f"{len(names)} classes ({first_few(names)})" for names in (class_names, source.class_names)
            )
            raise MisuseError(
                f"{source.name} has {found}, but the training data have {trained}. Use data with the same classes."
            )
        return source

    def build_network(self, recipe: Recipe, source: data.Source) -> keras.Model:
        """Builds the network, which returns logits, and loads and freezes weights as the recipe sets.

        Raises:
            MisuseError: if `init_from` cannot be used, or `image_size` is too small for the network.
        """
        return build_classifier(recipe, source.num_classes, source.class_names)

    def build_losses(self, source: data.Source) -> dict[str, Any]:
        """Returns cross-entropy, top-1 and top-5."""
        return build_losses()

    def build_step_transform(self, recipe: Recipe) -> Callable | None:
        """Returns label smoothing, then mixup, for `augment_on="device"`; otherwise the pipeline applies them."""
        if recipe.augment_on != "device":
            return None
        transform = batches.build_batch_transform(recipe)
        return keep_teacher_targets(transform) if recipe.teacher_cache else transform

    def load_teacher(self, recipe: Recipe, source: data.Source, strategy: Strategy) -> keras.Model | None:
        """Loads the teacher, if any, and checks that its cache can be used.

        Raises:
            MisuseError: if the teacher or its cache cannot be used.
        """
        teacher = load_teacher(recipe, source.num_classes, source.class_names)
        if recipe.teacher_cache:
            check_cache(recipe, source, teacher, strategy)
        return teacher

    def build_trainee(self, recipe: Recipe, network: keras.Model, teacher: keras.Model | None) -> keras.Model:
        """Returns the network or, with a teacher, a model that distils the teacher into it."""
        return network if teacher is None else build_distillation_model(recipe, network, teacher)

    def training_data(
        self,
        recipe: Recipe,
        source: data.Source,
        corrupt: data.CorruptLog,
        strategy: Strategy | None = None,
        first_epoch: int = 0,
        first_step: int = 0,
    ) -> tf.data.Dataset:
        """Returns batches of augmented images and soft labels; with a `teacher_cache`, also the teacher's targets."""
        place = {"first_epoch": first_epoch, "first_step": first_step}
        stream = batches.stream_options(recipe, corrupt, first_epoch, first_step)
        config = data.TrainConfig(
            **{**stream, **_rows(recipe, strategy)},
            image_size=recipe.image_size,
            transform=recipe.transform,
            min_area=recipe.min_area,
            crop_padding=recipe.crop_padding,
            batch_transform=batches.build_batch_transform(recipe),
            cache=recipe.cache,
            augment_on=recipe.augment_on,
        )
        augmented = data.train_pipeline(source, config)
        if not recipe.teacher_cache:
            return augmented
        return add_teacher_targets(augmented, recipe, source, strategy or build_strategy(recipe), **place)

    def evaluation_data(
        self, recipe: Recipe, source: data.Source, corrupt: data.CorruptLog, strategy: Strategy | None = None
    ) -> tf.data.Dataset:
        """Returns batches of unaugmented images, one-hot labels and weights."""
        config = data.EvalConfig(
            batch_size=recipe.batch_size,
            **batches.sharing(strategy),
            image_size=recipe.image_size,
            transform=recipe.transform,
            eval_crop=recipe.eval_crop,
            corrupt=corrupt,
            cache=recipe.cache,
            scaled_decoding=recipe.scaled_eval,
            ram_budget=recipe.ram_budget,
        )
        return data.eval_pipeline(source, config)

    def save(self, network: keras.Model, path: pathlib.Path) -> None:
        """Saves the network in float32, uncompiled, with all layers trainable."""
        save_float32(network, path)

    def evaluate(
        self, recipe: Recipe, path: pathlib.Path, source: data.Source, corrupt: data.CorruptLog
    ) -> dict[str, Any]:
        """Returns loss, top-1 and top-5 of a .keras file."""
        network = load_network(path, num_classes=source.num_classes)
        return evaluate(network, self.evaluation_data(recipe, source, corrupt), corrupt=corrupt)


def build_classifier(recipe: Recipe, num_classes: int, class_names: tuple[str, ...] = ()) -> keras.Model:
    """Builds a recipe's network for data with these classes; see `Classification.build_network`."""
    smallest = models.info(recipe.model).smallest_image_size
    if recipe.image_size < smallest:
        raise MisuseError(f"--model={recipe.model} needs --image_size of at least {smallest}, not {recipe.image_size}.")
    network = models.create_model(
        recipe.model, num_classes=num_classes, width=recipe.width, zero_gamma=recipe.zero_gamma
    )
    if recipe.init_from:
        load_weights_from(network, recipe.init_from, class_names)
    freeze(network, stages=recipe.frozen_stages, batch_norm=recipe.freeze_bn)
    return network


def save_float32(network: keras.Model, path: pathlib.Path) -> None:
    """Saves a functional network in float32, uncompiled, with all layers trainable."""
    copy = recast(network, "float32")
    for layer in copy.layers:
        layer.trainable = True  # users of the file decide what to freeze
    copy.save(path)


def _rows(recipe: Recipe, strategy: Strategy | None) -> dict[str, Any]:
    """Returns the pipeline arguments that select this worker's rows of a batch."""
    if not strategy or strategy.workers == 1:
        return {}
    if recipe.shard_by == "file":
        return {"batch_size": recipe.batch_size // strategy.workers, "draws_of": strategy.worker}
    return batches.sharing(strategy)
