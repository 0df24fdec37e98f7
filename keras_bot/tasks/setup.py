"""Backbone and recipe checks shared by detection and segmentation."""

import keras

from keras_bot import models
from keras_bot.errors import MisuseError
from keras_bot.models.dilate import OUTPUT_STRIDES, dilate
from keras_bot.recipe import Recipe
from keras_bot.tasks.backbone import LEVELS, as_backbone, check_covers
from keras_bot.training.finetune import freeze, start_from


def build_backbone(recipe: Recipe, output_stride: int = 32) -> keras.Model:
    """Builds the recipe's backbone with outputs C2 … C5, initialised from `init_from` and frozen as the recipe sets.

    Args:
        recipe: its `output_stride`, if set, takes precedence.
        output_stride: default of the task.

    Raises:
        MisuseError: If the network lacks these features or `init_from` can't be loaded into it.
    """
    stride = recipe.output_stride or output_stride
    if stride not in OUTPUT_STRIDES:
        raise MisuseError(f"Expected --output_stride as {', '.join(map(str, OUTPUT_STRIDES))}, received {stride}.")
    model = models.create(recipe.model, include_top=False, width=recipe.width, zero_gamma=recipe.zero_gamma)
    if not set(LEVELS) <= {layer.name for layer in model.layers}:
        raise MisuseError(f"Expected a network for ImageNet, with features C2 … C5, received --model={recipe.model}.")
    check_covers(model, f"--model={recipe.model}")
    if recipe.init_from:
        start_from(model, recipe.init_from)
    model = model if stride == 32 else dilate(model, stride)
    freeze(model, stages=recipe.frozen_stages, batch_norm=recipe.freeze_bn)
    return as_backbone(model)


def check_recipe(recipe: Recipe, heads: tuple[str, ...]):
    """Raises MisuseError for a backend other than TensorFlow and for flags that the task does not support."""
    if keras.backend.backend() != "tensorflow":
        raise MisuseError(f"Expected KERAS_BACKEND=tensorflow for {recipe.task}, received {keras.backend.backend()}.")
    if recipe.head not in ("", *heads):
        raise MisuseError(f"Expected --head as {' or '.join(heads)} for {recipe.task}, received {recipe.head}.")
    classifiers = {
        "teacher": recipe.teacher,
        "mixup_alpha": recipe.mixup_alpha,
        "label_smoothing": recipe.label_smoothing,
        "accumulation_steps": recipe.accumulation_steps > 1,
        "augment_on": recipe.augment_on == "device",
        "shard_by": recipe.shard_by == "file",
        "cache": recipe.cache,
        "scaled_eval": recipe.scaled_eval,
    }
    for name, wanted in classifiers.items():
        if wanted:
            raise MisuseError(f"Expected no --{name} for {recipe.task}, received it. It is for classification.")
    if not recipe.min_zoom <= recipe.max_zoom:
        raise MisuseError(f"Expected min_zoom of at most max_zoom, received {recipe.min_zoom} and {recipe.max_zoom}.")
