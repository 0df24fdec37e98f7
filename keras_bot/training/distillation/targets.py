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

from keras_bot import data
from keras_bot.data.python_ops import numpy_function
from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe
from keras_bot.surgery import recast
from keras_bot.training.batches import build_batch_transform, image_dtype
from keras_bot.training.distillation.cache import TeacherCache
from keras_bot.training.distillation.soft_targets import top_k_targets
from keras_bot.training.distillation.teacher import load_teacher
from keras_bot.training.distributed.strategy import Strategy
from keras_bot.training.schedule import count_steps

_KEY_FIELDS = (  # recipe fields in the cache key
    *("seed", "batch_size", "image_size", "transform", "flip", "min_area", "crop_padding", "color_jitter", "pca_noise"),
    *("mixup_alpha", "augment_on", "precision", "shuffle_buffer", "cache", "teacher_top_k"),
)
_GRID_SIZE = 8  # rows and columns of pixels that a fingerprint averages
_TOLERANCE = 0.05  # of fingerprint comparisons, in standard deviations; above the rounding of half precision
_TOLERANCE_UINT8 = 2  # the same for uint8 images


def cache_key(recipe: Recipe, source: data.Source, teacher: keras.Model, replicas: int = 1) -> dict[str, str]:
    """Returns the cache key: everything that the targets of a recipe depend on.

    Args:
        recipe: recipe of the run.
        source: its training set.
        teacher: result of `load_teacher`.
        replicas: number of replicas of the run.
    """
    mixup_ends = bool(recipe.mixup_alpha and recipe.mixup_off_epochs)
    mixes_per_replica = bool(recipe.mixup_alpha) and recipe.augment_on == "device"
    return {
        "teacher": _digest(teacher),
        "training images": f"{source.size} ({source.fingerprint()})",
        "classes": str(source.num_classes),
        **{name: text for name, text in recipe.as_text().items() if name in _KEY_FIELDS},
        **({"distill_temperature": f"{recipe.distill_temperature:g}"} if recipe.teacher_top_k else {}),
        "epochs before mixup ends": str(recipe.epochs - recipe.mixup_off_epochs) if mixup_ends else "all",
        "replicas that mix": str(replicas if mixes_per_replica else 1),
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


def check_cache(recipe: Recipe, source: data.Source, teacher: keras.Model, strategy: Strategy) -> None:
    """Raises MisuseError unless the recipe's `teacher_cache` can be used or created. Writes nothing."""
    if strategy.workers > 1:
        raise MisuseError(
            f"--teacher_cache supports one worker only, but there are {strategy.workers}. "
            "Compute the cache on one worker, or drop the flag."
        )
    if recipe.teacher_top_k >= source.num_classes:
        raise MisuseError(
            f"--teacher_top_k={recipe.teacher_top_k} must be less than the {source.num_classes} classes of "
            f"{source.name}. Use 0 to keep all logits."
        )
    _open_cache(recipe, source).check(cache_key(recipe, source, teacher, strategy.replicas), recipe.epochs)


def _open_cache(recipe, source):
    return TeacherCache(
        recipe.teacher_cache,
        steps_per_epoch=count_steps(recipe, source),
        batch_size=recipe.batch_size,
        target_size=_target_size(recipe, source),
    )


def _target_size(recipe, source):
    return 2 * recipe.teacher_top_k or source.num_classes


def add_teacher_targets(
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
        batches: result of `Classification.training_data` without a cache from the same epoch and step.
        recipe, source, strategy: as for `check_cache`.
        first_epoch, first_step: epoch and step of the first batch, from 0.

    Raises:
        RunError: if the cache cannot be created.
    """
    cache, steps = _open_cache(recipe, source), count_steps(recipe, source)
    missing = [epoch for epoch in range(first_epoch, recipe.epochs) if not cache.path(epoch).exists()]
    compute = None
    if missing:
        with strategy.outside_distribution():
            teacher = load_teacher(recipe, source.num_classes, source.class_names)
            cache.begin(cache_key(recipe, source, teacher, strategy.replicas))
            compute = _build_teacher_function(recipe, teacher, strategy)
        _print_missing(cache, len(missing), recipe.epochs - first_epoch)
    targets_of = _CachedTargets(cache, steps, frozenset(missing), compute)

    def add(index, batch):
        x, labels = batch
        targets = numpy_function(targets_of, [index, *tf.nest.flatten(x)], tf.float32)
        return x, (labels, tf.ensure_shape(targets, [recipe.batch_size, _target_size(recipe, source)]))

    return batches.enumerate(first_epoch * steps + first_step).map(add).prefetch(2)


def _print_missing(cache, missing, epochs):
    size = f"{missing * cache.epoch_bytes() / 2**20:,.1f} MiB"
    message = f"computing teacher outputs for {missing} of {epochs} epochs ({size}) in {cache.folder}"
    print(f"keras-bot: {message}.", file=sys.stderr, flush=True)


class _CachedTargets:
    """Reads a batch's targets from the cache, or computes and writes them. tf.data threads call it in batch order.

    Args:
        cache: the cache.
        steps: steps per epoch.
        missing: epochs to compute.
        compute: result of `_build_teacher_function`; None if no epoch is missing.
    """

    def __init__(self, cache: TeacherCache, steps: int, missing: frozenset[int], compute: Callable | None) -> None:
        self._cache, self._steps, self._missing, self._compute = cache, steps, missing, compute
        self._lock = threading.Lock()

    def __call__(self, index, images, *augmentation) -> np.ndarray:
        epoch, step = divmod(int(index), self._steps)
        fingerprints = _fingerprint(images)
        with self._lock:
            if self._compute is not None and epoch in self._missing:
                targets = self._compute(images, *augmentation)
                self._cache.write(epoch, step, fingerprints, targets)
                return targets
            cached = self._cache.read(epoch, step)
        tolerance = _TOLERANCE_UINT8 if images.dtype == np.uint8 else _TOLERANCE
        if not np.abs(cached.fingerprints - fingerprints).max() <= tolerance:
            raise RunError(
                f"{self._cache.folder} was computed for other images in step {step + 1} of epoch {epoch + 1}: the "
                "images have changed or are decoded differently. Choose another --teacher_cache."
            )
        return cached.targets


def _fingerprint(images):
    """Returns the mean of a grid of pixels of each image: (B, H, W, 3) -> float32 (B, 3)."""
    stride = [max(1, size // _GRID_SIZE) for size in images.shape[1:3]]
    pixels = images[:, stride[0] // 2 :: stride[0], stride[1] // 2 :: stride[1]]
    return pixels.astype(np.float32).mean(axis=(1, 2))


def _build_teacher_function(recipe, teacher, strategy) -> Callable[..., np.ndarray]:
    """Returns a function that runs the teacher on one device, on as many images at once as a replica trains on."""
    teacher = recast(teacher, recipe.precision)
    teacher.trainable = False
    teacher.compile(jit_compile=strategy.use_jit(recipe))
    transform, dtype = build_batch_transform(recipe), image_dtype(recipe)
    labels = tf.zeros([recipe.batch_size // strategy.replicas, teacher.output_shape[-1]])

    @tf.function
    def finish(*inputs):
        return data.finish_batch(inputs, labels, transform, dtype)[0]

    def compute(*inputs):
        logits = []
        for replica_inputs in zip(*(np.split(array, strategy.replicas) for array in inputs), strict=True):
            images = finish(*replica_inputs).numpy() if recipe.augment_on == "device" else replica_inputs[0]
            micro_batches = np.split(images, recipe.accumulation_steps)
            logits += [teacher.predict_on_batch(micro_batch) for micro_batch in micro_batches]
        targets = np.concatenate(logits).astype(np.float32)
        if not recipe.teacher_top_k:
            return targets
        return top_k_targets(targets, recipe.teacher_top_k, recipe.distill_temperature)

    return compute
