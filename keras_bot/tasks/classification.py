"""Classification task of `keras-bot train`."""

import pathlib

import keras
import tensorflow as tf

from keras_bot import data, tricks
from keras_bot.model_files import load_network
from keras_bot.recipe import Recipe
from keras_bot.tasks.base import Task
from keras_bot.training import assemble
from keras_bot.training.distillation.targets import check_cache, with_targets
from keras_bot.training.distillation.teacher import load_teacher
from keras_bot.training.distributed.strategy import Strategy
from keras_bot.training.evaluate import evaluate


def build_trainee(recipe: Recipe, source: data.Source, strategy: Strategy) -> tuple[keras.Model, keras.Model]:
    """Builds the network for a training set and the compiled model to fit, in the scope of policy and strategy.

    Raises:
        MisuseError: if the teacher, its cache, the training set or the initial weights cannot be used.
    """
    model = assemble.build_model(recipe, source.num_classes, source.class_names)
    teacher = load_teacher(recipe, source.num_classes, source.class_names)
    if recipe.teacher_cache:
        check_cache(recipe, source, teacher, strategy)
    trainee = assemble.compile_trainee(
        recipe,
        model,
        assemble.build_schedule(recipe, assemble.steps_in_epoch(recipe, source, strategy.workers)),
        strategy,
        teacher=teacher,
    )
    return model, trainee


def training_data(
    recipe: Recipe,
    source: data.Source,
    corrupt: data.CorruptLog,
    *,
    first_epoch: int,
    first_step: int,
    strategy: Strategy,
) -> tf.data.Dataset:
    """Returns `assemble.training_data`; with a `teacher_cache` the labels include the teacher's targets."""
    place = {"first_epoch": first_epoch, "first_step": first_step}
    batches = assemble.training_data(recipe, source, corrupt, strategy=strategy, **place)
    return with_targets(batches, recipe, source, strategy, **place) if recipe.teacher_cache else batches


def evaluate_file(recipe: Recipe, path: pathlib.Path, source: data.Source, corrupt: data.CorruptLog) -> dict:
    """Returns loss, top-1 and top-5 of a .keras file.

    Raises:
        MisuseError: if the file cannot be used, or its number of classes differs from that of the data.
    """
    model = load_network(path, num_classes=source.num_classes)
    return evaluate(model, assemble.evaluation_data(recipe, source, corrupt), corrupt=corrupt)


def save_float32(model: keras.Model, path: pathlib.Path):
    """Saves a functional network in float32, uncompiled, with all layers trainable."""
    copy = tricks.recast(model, "float32")
    for layer in copy.layers:
        layer.trainable = True  # whoever loads the file decides what to freeze
    copy.save(path)


CLASSIFICATION = Task(
    name="classification",
    metrics=("top1", "top5"),
    open_source=assemble.open_source,
    build=build_trainee,
    training_data=training_data,
    evaluation_data=assemble.evaluation_data,
    save=save_float32,
    evaluate=evaluate_file,
)
