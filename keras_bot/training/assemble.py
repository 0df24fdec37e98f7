"""Model, optimizer, schedule and data of a recipe: the only module that knows all tricks.

Each trick is enabled by one line here. Labels are float (batch, classes) throughout. They are processed in this order:
one_hot (pipeline) -> smooth -> mixup -> teacher.
"""

import keras
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_bot import data, models, tricks
from keras_bot.errors import MisuseError, first_few
from keras_bot.recipe import REFERENCE_BATCH_SIZE, Recipe
from keras_bot.training.device_augment import finish_in_step
from keras_bot.training.distillation.soft_targets import build_distiller, keep_teacher_targets
from keras_bot.training.distributed.strategy import Strategy
from keras_bot.training.finetune import freeze, rates, start_from
from keras_bot.training.optimizer import AdamW
from keras_bot.tricks.label_smoothing import spread_epsilon


def build_model(recipe: Recipe, num_classes: int, class_names: tuple[str, ...] = ()) -> keras.Model:
    """Builds the network to train, which returns logits, and loads and freezes weights as the recipe asks.

    Raises:
        MisuseError: if `init_from` cannot be used, or `image_size` is too small for the network.
    """
    smallest = models.smallest_image_size(recipe.model)
    if recipe.image_size < smallest:
        raise MisuseError(
            f"Expected --image_size of at least {smallest} for --model={recipe.model}, received {recipe.image_size}."
        )
    model = models.create(recipe.model, num_classes=num_classes, width=recipe.width, zero_gamma=recipe.zero_gamma)
    if recipe.init_from:
        start_from(model, recipe.init_from, class_names)
    freeze(model, stages=recipe.frozen_stages, batch_norm=recipe.freeze_bn)
    return model


def peak_learning_rate(recipe: Recipe) -> float:
    """Returns the learning rate at the end of the warmup."""
    if recipe.linear_scaling:
        return tricks.linear_scaling(recipe.learning_rate, recipe.batch_size, REFERENCE_BATCH_SIZE)
    return recipe.learning_rate


def count_warmup_steps(recipe: Recipe, steps_per_epoch: int) -> int:
    """Returns the number of warmup steps, capped to leave at least one step before the first decay or the end."""
    end = recipe.decay_epochs[0] if recipe.schedule == "step" and recipe.decay_epochs else recipe.epochs
    return min(round(recipe.warmup_epochs * steps_per_epoch), end * steps_per_epoch - 1)


def build_schedule(recipe: Recipe, steps_per_epoch: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Builds the learning rate schedule. `decay_epochs` count from the start of training, including the warmup."""
    peak = peak_learning_rate(recipe)
    warmup_steps = count_warmup_steps(recipe, steps_per_epoch)
    if recipe.schedule == "step":
        boundaries = [epoch * steps_per_epoch - warmup_steps for epoch in recipe.decay_epochs]
        schedule = tricks.StepDecay(peak, boundaries, recipe.decay_factor)
    elif recipe.schedule == "cosine":
        schedule = tricks.CosineDecay(peak, recipe.epochs * steps_per_epoch - warmup_steps)
    elif recipe.schedule == "poly":
        schedule = tricks.PolyDecay(peak, recipe.epochs * steps_per_epoch - warmup_steps)
    else:
        schedule = tricks.StepDecay(peak, [], recipe.decay_factor)
    return tricks.Warmup(schedule, warmup_steps) if warmup_steps else schedule


def build_optimizer(recipe: Recipe, schedule, model: keras.Model) -> keras.optimizers.Optimizer:
    """Builds AdamW, or Nesterov momentum with L2 in the gradient, on kernels only or on all weights.

    Raises:
        MisuseError: if `layer_decay` is combined with AdamW.
    """
    if recipe.optimizer == "adamw":
        if recipe.layer_decay < 1:
            raise MisuseError("Expected --layer_decay with --optimizer=nag, received it with adamw. Drop one.")
        optimizer = AdamW(schedule, weight_decay=recipe.weight_decay, global_clipnorm=recipe.global_clipnorm or None)
        spared = tricks.split_by_decay(model)[1] if recipe.no_bias_decay else []
        if spared:
            optimizer.exclude_from_weight_decay(var_list=spared)
        return optimizer
    decay = "kernels" if recipe.no_bias_decay else "all"
    factors = rates(model, recipe.layer_decay) if recipe.layer_decay < 1 else None
    return tricks.NAG(
        schedule,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        decay=decay,
        rates=factors,
        global_clipnorm=recipe.global_clipnorm or None,
    )


def build_batch_transform(recipe: Recipe):
    """Returns the transform of a batch of images and one-hot labels: label smoothing, then mixup."""
    last_mixed_epoch = recipe.epochs - recipe.mixup_off_epochs

    def transform(images, labels, seed, epoch):
        if recipe.label_smoothing:
            labels = spread_epsilon(labels, recipe.label_smoothing)
        if recipe.mixup_alpha:
            uniforms = tf.random.stateless_uniform([2], seed, alg="philox")  # the same on every device
            weight = tricks.symmetric_beta(uniforms, recipe.mixup_alpha, data.ops)
            weight = tf.where(epoch < last_mixed_epoch, weight, 1.0)
            images, labels = (tricks.mix_with_reversal(x, weight, data.ops) for x in (images, labels))
        return images, labels

    return transform


def compile_trainee(
    recipe: Recipe, model: keras.Model, schedule, strategy: Strategy, *, teacher: keras.Model | None
) -> keras.Model:
    """Compiles the model to fit: the network or, with a teacher, a Distiller around it.

    With a `teacher_cache` the Distiller does not contain the teacher; the cached targets come with the labels.
    """
    trainee = model if teacher is None else build_distiller(recipe, model, teacher)
    compile_for(recipe, trainee, model, schedule, strategy, loss=build_loss(), weighted_metrics=build_metrics())
    if recipe.augment_on == "device":
        transform = build_batch_transform(recipe)
        if teacher is not None and recipe.teacher_cache:
            transform = keep_teacher_targets(transform)
        finish_in_step(trainee, transform, image_dtype(recipe))
    return trainee


def compile_for(recipe: Recipe, trainee: keras.Model, model: keras.Model, schedule, strategy: Strategy, **options):
    """Compiles `trainee`, which is the network `model` or a wrapper around it, and prepares its training step.

    Args:
        options: loss and metrics, as in Keras' `compile`.
    """
    optimizer = build_optimizer(recipe, schedule, model)
    if recipe.precision == "mixed_float16":
        optimizer = tricks.LossScaling(optimizer)
    jit = strategy.use_jit(recipe) and getattr(trainee, "supports_jit", True)
    trainee.compile(optimizer=optimizer, jit_compile=jit, **options)
    strategy.prepare_step(trainee, model, synchronised=recipe.sync_bn, parts=recipe.accumulation_steps)


def image_dtype(recipe: Recipe) -> str:
    """Returns the dtype of training images, which is the compute dtype of the dtype policy."""
    return recipe.precision.removeprefix("mixed_")


def build_loss() -> keras.losses.Loss:
    """Returns the float32 cross-entropy loss of logits and (batch, classes) labels."""
    return keras.losses.CategoricalCrossentropy(from_logits=True, dtype="float32")


def build_metrics() -> list[keras.metrics.Metric]:
    """Returns top-1 accuracy, top-5 accuracy and cross-entropy for (batch, classes) labels.

    Pass them as `weighted_metrics` of `compile`. On a padded batch only they are exact: see `evaluate.ExactLoss`.
    """
    return [
        keras.metrics.CategoricalAccuracy(name="top1", dtype="float32"),
        keras.metrics.TopKCategoricalAccuracy(5, name="top5", dtype="float32"),
        keras.metrics.CategoricalCrossentropy(from_logits=True, name="cross_entropy", dtype="float32"),
    ]


def training_data(
    recipe: Recipe,
    source,
    corrupt,
    *,
    first_epoch: int = 0,
    first_step: int = 0,
    batch_size: int | None = None,
    augment_on: str | None = None,
    strategy: Strategy | None = None,
) -> tf.data.Dataset:
    """Returns batches of augmented images and soft labels from the given step on; only this worker's rows of them."""
    stream = stream_options(recipe, corrupt, first_epoch, first_step)
    return data.train_pipeline(
        source,
        **{**stream, **_rows(recipe, batch_size or recipe.batch_size, strategy)},
        image_size=recipe.image_size,
        transform=recipe.transform,
        min_area=recipe.min_area,
        crop_padding=recipe.crop_padding,
        batch_transform=build_batch_transform(recipe),
        cache=recipe.cache,
        augment_on=augment_on or recipe.augment_on,
    )


def stream_options(
    recipe: Recipe, corrupt, first_epoch: int, first_step: int, strategy: Strategy | None = None
) -> dict[str, object]:
    """Returns the arguments that the training pipelines of all tasks share."""
    return {
        "batch_size": recipe.batch_size,
        "flip": recipe.flip,
        "color_jitter": recipe.color_jitter,
        "pca_noise": recipe.pca_noise,
        "seed": recipe.seed,
        "first_epoch": first_epoch,
        "first_step": first_step,
        "epochs": recipe.epochs,
        "corrupt": corrupt,
        "shuffle_buffer": recipe.shuffle_buffer,
        "dtype": image_dtype(recipe),
        "ram_budget": recipe.ram_budget,
        **sharing(strategy),
    }


def _rows(recipe, batch_size, strategy):
    """Returns the pipeline arguments that select this worker's rows of a batch."""
    if not strategy or strategy.workers == 1:
        return {"batch_size": batch_size}
    if recipe.shard_by == "file":
        return {"batch_size": batch_size // strategy.workers, "draws_of": strategy.worker}
    return {"batch_size": batch_size, "worker": strategy.worker, "workers": strategy.workers}


def sharing(strategy: Strategy | None) -> dict[str, int]:
    """Returns the `worker` and `workers` arguments of a pipeline; none without a strategy."""
    return {"worker": strategy.worker, "workers": strategy.workers} if strategy else {}


def evaluation_data(recipe: Recipe, source, corrupt, strategy: Strategy | None = None) -> tf.data.Dataset:
    """Returns batches of unaugmented images, one-hot labels and weights. Every image occurs once, on one worker."""
    return data.eval_pipeline(
        source,
        batch_size=recipe.batch_size,
        **sharing(strategy),
        image_size=recipe.image_size,
        transform=recipe.transform,
        eval_crop=recipe.eval_crop,
        corrupt=corrupt,
        cache=recipe.cache,
        scaled_decoding=recipe.scaled_eval,
        ram_budget=recipe.ram_budget,
    )


def open_source(recipe: Recipe, split: str, strategy: Strategy | None = None, class_names: tuple[str, ...] = ()):
    """Opens the "train" or "eval" split of the recipe's data set; with file sharding, this worker's training shard.

    Raises:
        MisuseError: if the data set cannot be used, or its classes differ from non-empty `class_names`.
    """
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
        trained, received = (f"{len(names)} classes, {first_few(names)}" for names in (class_names, source.class_names))
        raise MisuseError(
            f"Expected in {source.name} the classes of the training, {trained}; received {received}. "
            "Give data with the same classes."
        )
    return source


def steps_in_epoch(recipe: Recipe, source, workers: int = 1) -> int:
    """Returns the number of whole batches per epoch.

    Raises:
        MisuseError: if there is no whole batch, or fewer than 2 classes in a task other than detection.
    """
    if source.num_classes < 2 and recipe.task != "detection":
        raise MisuseError(f"Expected at least 2 classes, received {source.num_classes} in {source.name}.")
    share = recipe.batch_size // workers if recipe.shard_by == "file" else recipe.batch_size
    if share > source.size:
        raise MisuseError(
            f"Expected a batch_size of at most the {source.size} training images of {source.name}, received {share}."
        )
    return source.size // share


def active_tricks(recipe: Recipe) -> list[str]:
    """Returns the names of the tricks that the recipe uses, with the paper's sections."""
    variant = models.variant(recipe.model)
    stated = {
        f"ResNet-{variant} (4)": variant not in (None, "A"),
        f"linear scaling to {peak_learning_rate(recipe):g} (3.1)": recipe.linear_scaling,
        f"warmup, {recipe.warmup_epochs:g} epochs (3.1)": recipe.warmup_epochs > 0,
        "zero gamma (3.1)": recipe.zero_gamma,
        "no bias decay (3.1)": recipe.no_bias_decay,
        f"{recipe.precision} (3.2)": recipe.precision != "float32",
        "cosine decay (5.1)": recipe.schedule == "cosine",
        f"label smoothing, epsilon {recipe.label_smoothing:g} (5.2)": recipe.label_smoothing > 0,
        f"distillation, T {recipe.distill_temperature:g} (5.3)": bool(recipe.teacher),
        f"mixup, alpha {recipe.mixup_alpha:g} (5.4)": recipe.mixup_alpha > 0,
    }
    return [name for name, active in stated.items() if active]
