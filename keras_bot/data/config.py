"""Options of the input pipelines: one frozen dataclass per pipeline, validated when it is built.

    StreamConfig            every pipeline: batch size, workers, dtype, corrupt images, memory
        TrainingStreamConfig    and training: epochs, seed, where to start, shuffling, colour augmentation
            TrainConfig             and classification
        EvalConfig              classification

Detection and segmentation extend the first two in the same way.
"""

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Collection, Iterable

import numpy as np
import tensorflow as tf

from keras_bot.data.augment.geometry import TRANSFORMS
from keras_bot.data.corrupt import CorruptLog
from keras_bot.data.sharding import WorkerRows, eval_rows, training_rows
from keras_bot.errors import MisuseError, unknown

BatchTransform = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]

_DTYPES = ("float32", "float16", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """Options of every input pipeline.

    Attributes:
        batch_size: B, the number of images per batch, over all workers.
        corrupt: records the names of images that cannot be decoded and raises if there are too many; None allows none.
        dtype: dtype of the images: float32, float16 or bfloat16.
        ram_budget: upper limit in MiB for the buffers that tf.data autotunes.
        worker, workers: index of this worker and number of workers. The pipeline makes only this worker's B // workers
            rows of each batch, see `worker_rows`. Together the workers' batches equal those of one process bit for bit.

    Raises:
        MisuseError: an option is out of range, or the workers cannot divide the batch.
    """

    batch_size: int
    corrupt: CorruptLog | None = None
    dtype: str = "float32"
    ram_budget: int = 1024
    worker: int = 0
    workers: int = 1

    def __post_init__(self):
        check_whole(batch_size=self.batch_size, ram_budget=self.ram_budget)
        if self.dtype not in _DTYPES:
            raise unknown("dtype", self.dtype, _DTYPES)
        self.worker_rows()  # raises if the workers cannot divide the batch

    def worker_rows(self) -> WorkerRows:
        """Returns the rows of each batch that this worker makes."""
        return eval_rows(self.batch_size, self.worker, self.workers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingStreamConfig(StreamConfig):
    """Options of every training pipeline.

    A corrupt image is replaced by another one of this worker's rows of the batch, with its targets. If none of them
    can be decoded, the images are black and without targets.

    Attributes:
        epochs: the stream ends after epoch `epochs - 1`. An epoch has `source.size // B` steps and drops the
            remainder, different images each time.
        seed: any integer.
        first_epoch, first_step: where to start, counted from 0; the step is relative to that epoch.
        flip: whether to flip horizontally with probability 1/2.
        color_jitter, pca_noise: strength of the colour augmentation, see `augment.color`; 0 is off.
        shuffle_buffer: number of encoded records held in memory to shuffle a TFDS or TFRecord set; other sources
            are shuffled globally.
        draws_of: index of the share, if the source is one worker's share of a data set. Each share has its own order
            and augmentations. The seeds passed to `TrainConfig.batch_transform` are the same for all.
    """

    epochs: int
    seed: int = 0
    first_epoch: int = 0
    first_step: int = 0
    flip: bool = True
    color_jitter: float = 0.4
    pca_noise: float = 0.1
    shuffle_buffer: int = 8192
    draws_of: int = 0

    def __post_init__(self):
        super().__post_init__()
        check_whole(shuffle_buffer=self.shuffle_buffer)
        if not 0 <= self.first_epoch <= self.epochs:
            raise MisuseError(f"first_epoch must be from 0 to epochs={self.epochs}, received {self.first_epoch}.")
        if not 0 <= self.color_jitter <= 1 or not 0 <= self.pca_noise < math.inf:
            raise MisuseError(
                "color_jitter must be from 0 to 1, and pca_noise finite and at least 0, received "
                f"{self.color_jitter} and {self.pca_noise}. 0 is off."
            )
        if not isinstance(self.draws_of, int | np.integer) or self.draws_of < 0:
            raise MisuseError(f"draws_of must be a whole number of at least 0, received {self.draws_of!r}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(TrainingStreamConfig):
    """Options of `train_pipeline`.

    With several workers B must be divisible by 2 * workers, because mixup pairs the rows of a batch, see `worker_rows`.

    Attributes:
        image_size: S, height and width of the images.
        transform: "imagenet", "cifar" or "plain"; see `geometry.train_image`. "plain" has no augmentation and ignores
            `flip`, `color_jitter` and `pca_noise`.
        min_area, crop_padding: see `geometry.train_image`.
        batch_transform: (images, one-hot labels, seed int32 (2,), epoch int64) -> (images, labels), after
            normalisation: label smoothing and mixup.
        cache: whether to keep all records in memory, still encoded, so that the source is read only once.
        augment_on: "host", or "device" to leave colour, normalisation and `batch_transform` to the training step; the
            elements are then the arguments of `finish_batch`.
    """

    image_size: int
    transform: str = "imagenet"
    min_area: float = 0.08
    crop_padding: int = 4
    batch_transform: BatchTransform | None = None
    cache: bool = False
    augment_on: str = "host"

    def __post_init__(self):
        super().__post_init__()
        _check_images(self)
        if self.augment_on not in ("host", "device"):
            raise unknown("place to augment on", self.augment_on, ("host", "device"))
        if not 0 < self.min_area <= 1 or self.crop_padding < 0:
            raise MisuseError(
                "min_area must be above 0 and at most 1, and crop_padding at least 0, received "
                f"{self.min_area} and {self.crop_padding}."
            )

    def worker_rows(self) -> WorkerRows:
        """Returns the rows of each batch that this worker makes, each with its mixup partner."""
        return training_rows(self.batch_size, self.worker, self.workers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig(StreamConfig):
    """Options of `eval_pipeline`.

    All workers have the same number of batches; a worker's last batch may contain only padding.

    Attributes:
        image_size: S, height and width of the images.
        transform, eval_crop: see `geometry.eval_image`.
        cache: as in `TrainConfig`.
        scaled_decoding: whether to decode JPEGs at 1/2, 1/4 or 1/8 scale where they are that much larger than
            needed. This is faster for large photos but not exact.
        pad: whether to fill every batch to B rows. Without it the number of batches is unknown if `corrupt` allows
            images to fail. Required for several workers.
    """

    image_size: int
    transform: str = "imagenet"
    eval_crop: float = 0.875
    cache: bool = False
    scaled_decoding: bool = False
    pad: bool = True

    def __post_init__(self):
        super().__post_init__()
        _check_images(self)
        if not 0 < self.eval_crop <= 1:
            raise MisuseError(f"eval_crop must be above 0 and at most 1, received {self.eval_crop}.")
        if self.workers > 1 and not self.pad:
            raise MisuseError(f"pad=False gives {self.workers} workers different numbers of batches. Use pad=True.")


def _check_images(config: TrainConfig | EvalConfig) -> None:
    check_whole(image_size=config.image_size)
    if config.transform not in TRANSFORMS:
        raise unknown("transform", config.transform, TRANSFORMS)


def check_whole(**values: int) -> None:
    """Raises MisuseError unless each value, passed as name=value, is a whole number of at least 1."""
    for name, value in values.items():
        if not isinstance(value, int | np.integer):
            raise MisuseError(f"{name} must be a whole number, received {value!r}.")
        if value < 1:
            raise MisuseError(f"{name} must be at least 1, received {value}.")


def field_names(config_class: type) -> list[str]:
    """Returns the names of a dataclass's fields."""
    return [field.name for field in dataclasses.fields(config_class)]


def check_names(function: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raises TypeError for the first name that is not an option of the function; suggests similar ones."""
    for name in names:
        if name not in known:
            raise TypeError(str(unknown(f"option of {function}", name, known)))


def accept_keywords(config_class: type[StreamConfig]) -> Callable:
    """Returns a decorator that lets `pipeline(source, config)` accept the config's fields as keywords, as in 0.1.0."""

    def decorate(pipeline: Callable) -> Callable:
        name, class_name = pipeline.__name__, config_class.__name__

        @functools.wraps(pipeline)
        def call(source, config: StreamConfig | None = None, **options) -> tf.data.Dataset:
            if config is None:
                check_names(name, options, field_names(config_class))
                warnings.warn(f"Pass the options of {name} as {class_name}(…), not as keywords.", DeprecationWarning, 2)
                return pipeline(source, config_class(**options))
            if options:
                raise TypeError(f"{name}: pass {', '.join(options)} to {class_name} instead.")
            return pipeline(source, config)

        return call

    return decorate
