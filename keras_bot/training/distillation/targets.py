"""Training pipeline whose labels include the teacher's outputs, read from its cache or else computed.

An image's augmentation, batch position and mixup are functions of (seed, epoch, position) alone: see `data.stream`. So
epoch and step identify a batch, and `cache_key` identifies the stream of batches. The student's network, schedule,
optimizer, smoothing and number of epochs may change between runs; the values in `cache_key` may not.

The teacher runs in the pipeline, in order, as soon as a batch is ready, while the step trains on the previous one.
"""

import hashlib
import sys
import threading
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_bot import data, tricks
from keras_bot.data.python_ops import in_python
from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe
from keras_bot.training import assemble
from keras_bot.training.distillation.cache import TeacherCache
from keras_bot.training.distillation.soft_targets import keep_top
from keras_bot.training.distillation.teacher import load_teacher
from keras_bot.training.distributed.strategy import Strategy

_KNOBS = (
    *("seed", "batch_size", "image_size", "transform", "flip", "min_area", "crop_padding", "color_jitter", "pca_noise"),
    *("mixup_alpha", "augment_on", "precision", "shuffle_buffer", "cache", "teacher_top_k"),
)
_POINTS = 8  # rows and columns of pixels averaged in `seen`
_ALIKE = 0.05  # tolerance of `seen`, in standard deviations; half-precision rounding stays below it
_ALIKE_BYTES = 2


def cache_key(recipe: Recipe, source: data.Source, teacher: keras.Model, replicas: int = 1) -> dict[str, str]:
    """Returns the cache key: everything that the targets of a recipe depend on.

    Args:
        recipe: recipe of the run.
        source: its training set.
        teacher: result of `load_teacher`.
        replicas: number of replicas of the run.
    """
    ends = bool(recipe.mixup_alpha and recipe.mixup_off_epochs)
    alone = bool(recipe.mixup_alpha) and recipe.augment_on == "device"  # each replica mixes its own rows
    return {
        "teacher": _digest(teacher),
        "training images": f"{source.size} ({source.fingerprint()})",
        "classes": str(source.num_classes),
        **{name: text for name, text in recipe.as_text().items() if name in _KNOBS},
        **({"distill_temperature": f"{recipe.distill_temperature:g}"} if recipe.teacher_top_k else {}),
        "epochs before mixup ends": str(recipe.epochs - recipe.mixup_off_epochs) if ends else "all",
        "replicas that mix": str(replicas if alone else 1),
    }


def _digest(teacher):
    """Returns a digest of the teacher's weights and input conversion, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for layer in teacher.layers:
        config = layer.get_config()
        numbers = {name: config[name] for name in ("scale", "offset", "height", "width") if name in config}
        digest.update(f"{type(layer).__name__} {numbers}".encode())
    for weight in teacher.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).tobytes())
    return digest.hexdigest()[:16]


def check_cache(recipe: Recipe, source: data.Source, teacher: keras.Model, strategy: Strategy):
    """Raises MisuseError unless the recipe's `teacher_cache` can be used or created. Writes nothing."""
    if strategy.workers > 1:
        raise MisuseError(
            f"Expected one worker with --teacher_cache, received {strategy.workers}. Fill it on one, or drop it."
        )
    if recipe.teacher_top_k >= source.num_classes:
        raise MisuseError(
            f"Expected teacher_top_k below the {source.num_classes} classes of {source.name}, received "
            f"{recipe.teacher_top_k}. Give 0 to keep all."
        )
    _cache(recipe, source).check(cache_key(recipe, source, teacher, strategy.replicas), recipe.epochs)


def _cache(recipe, source):
    return TeacherCache(
        recipe.teacher_cache,
        steps=assemble.steps_in_epoch(recipe, source),
        rows=recipe.batch_size,
        width=2 * recipe.teacher_top_k or source.num_classes,
    )


def with_targets(
    batches: tf.data.Dataset,
    recipe: Recipe,
    source: data.Source,
    strategy: Strategy,
    *,
    first_epoch: int,
    first_step: int,
) -> tf.data.Dataset:
    """Maps (x, labels) to (x, (labels, targets float32 (B, n))): n = K logits, or 2k numbers with `teacher_top_k`.

    Args:
        batches: result of `assemble.training_data` from the same epoch and step.
        recipe, source, strategy: as for `check_cache`.
        first_epoch, first_step: epoch and step of the first batch, from 0.

    Raises:
        RunError: if the cache can't be made.
    """
    cache, steps = _cache(recipe, source), assemble.steps_in_epoch(recipe, source)
    missing = [epoch for epoch in range(first_epoch, recipe.epochs) if not cache.path(epoch).exists()]
    ask = None
    if missing:
        with strategy.outside_distribution():
            teacher = load_teacher(recipe, source.num_classes, source.class_names)
            cache.begin(cache_key(recipe, source, teacher, strategy.replicas))
            ask = _asker(recipe, teacher, strategy)
        size = len(missing) * cache.epoch_bytes() / 2**20
        told = f"the teacher is asked in {len(missing)} of {recipe.epochs - first_epoch} epochs, for {size:,.1f} MiB"
        print(f"keras-bot: {told} in {cache.folder}.", file=sys.stderr, flush=True)
    answer = _Answers(cache, steps, frozenset(missing), ask)
    width = 2 * recipe.teacher_top_k or source.num_classes

    def add(number, batch):
        x, labels = batch
        targets = in_python(answer, [number, *tf.nest.flatten(x)], tf.float32)
        return x, (labels, tf.ensure_shape(targets, [recipe.batch_size, width]))

    return batches.enumerate(first_epoch * steps + first_step).map(add).prefetch(2)


class _Answers:
    """Targets of a batch, from the cache or the teacher. tf.data threads call it with batches in order."""

    def __init__(self, cache: TeacherCache, steps: int, missing: frozenset[int], ask: Callable | None):
        self._cache, self._steps, self._missing, self._ask = cache, steps, missing, ask
        self._lock = threading.Lock()

    def __call__(self, number, images, *rest) -> np.ndarray:
        epoch, step = divmod(int(number), self._steps)
        seen = _seen(images)
        with self._lock:
            if epoch in self._missing:
                targets = self._ask(images, *rest)
                self._cache.write(epoch, step, seen, targets)
                return targets
            kept, targets = self._cache.read(epoch, step)
        alike = _ALIKE_BYTES if images.dtype == np.uint8 else _ALIKE
        if not np.abs(kept - seen).max() <= alike:
            raise RunError(
                f"The images of step {step + 1} of epoch {epoch + 1} aren't those that {self._cache.folder} was "
                "computed of: they were changed since, or are decoded otherwise. Choose another --teacher_cache."
            )
        return targets


def _seen(images):
    """Returns the mean of a grid of pixels of each image: (B, H, W, 3) -> float32 (B, 3)."""
    stride = [max(1, size // _POINTS) for size in images.shape[1:3]]
    some = images[:, stride[0] // 2 :: stride[0], stride[1] // 2 :: stride[1]]
    return some.astype(np.float32).mean(axis=(1, 2))


def _asker(recipe, teacher, strategy) -> Callable[..., np.ndarray]:
    """Returns a function that runs the teacher on one device, on as many images at once as a replica trains on."""
    teacher = tricks.recast(teacher, recipe.precision)
    teacher.trainable = False
    teacher.compile(jit_compile=strategy.use_jit(recipe))
    transform, dtype = assemble.build_batch_transform(recipe), assemble.image_dtype(recipe)
    labels = tf.zeros([recipe.batch_size // strategy.replicas, teacher.output_shape[-1]])

    @tf.function
    def finish(*inputs):
        return data.finish_batch(inputs, labels, transform, dtype)[0]

    def ask(*inputs):
        logits = []
        for part in zip(*(np.split(array, strategy.replicas) for array in inputs), strict=True):
            images = finish(*part).numpy() if recipe.augment_on == "device" else part[0]
            logits += [teacher.predict_on_batch(some) for some in np.split(images, recipe.accumulation_steps)]
        logits = np.concatenate(logits).astype(np.float32)
        return keep_top(logits, recipe.teacher_top_k, recipe.distill_temperature) if recipe.teacher_top_k else logits

    return ask
