"""The recipe: all fields of a training run, with type, default, help and range.

The defaults are the paper's baseline (section 2.1: ResNet-50, batch 256, step decay, no tricks). Command-line flags,
`run.flags` and the flagfile tests are derived from this module. It only depends on the standard library.
"""

import dataclasses
import functools
import math
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from keras_bot.errors import MisuseError

REFERENCE_BATCH_SIZE = 256
MOST_SEED = 2**32 - 1  # largest seed that Keras accepts
RENAMED = {  # names of fields in version 0.1.0 -> names today
    "shard": "shard_by",
    "map_form": "map_metric",
    "keep": "keep_checkpoints",
    "accumulate": "accumulation_steps",
    "jit": "jit_compile",
    "clip_norm": "global_clipnorm",
}
PATHS = ("dataset", "data_dir", "teacher", "teacher_cache", "init_from")  # fields that may hold a path


def setting(default, help, *, section=None, choices=None, at_least=None, at_most=None, below=None, above=None):
    """Creates a recipe field. `section` starts a new section of the help; `Recipe` checks the bounds."""
    bounds = {"at_least": at_least, "at_most": at_most, "below": below, "above": above}
    metadata = {"help": help, "section": section, "choices": choices, "bounds": bounds}
    return dataclasses.field(default=default, metadata=metadata)


def _accept_old_names(cls):
    """Class decorator: the constructor takes the names of `RENAMED` too, with a DeprecationWarning."""
    init = cls.__init__

    @functools.wraps(init)
    def __init__(self, **values):
        for old in RENAMED.keys() & values.keys():
            warnings.warn(f"Recipe({old}=…) is now {RENAMED[old]}.", DeprecationWarning, stacklevel=2)
            if RENAMED[old] in values:
                raise TypeError(f"Recipe received {old} and {RENAMED[old]}, which are the same field. Drop {old}.")
            values[RENAMED[old]] = values.pop(old)
        init(self, **values)

    cls.__init__ = __init__
    return cls


@_accept_old_names
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Configuration of a training run: model, data and tricks. Raises MisuseError for invalid values.

    Section numbers in the help are the paper's (He et al., CVPR 2019, arXiv 1812.01187).
    """

    dataset: str = setting(
        "imagenet2012",
        "a TFDS name (digits, imagenet2012, …), a folder with train/CLASS/*.jpg and val/CLASS/*.jpg, a folder of "
        "TFRecord shards, an .npz file with x_train, y_train, x_test, y_test, or synthetic; of boxes and masks see the "
        "README",
        section="Data",
    )
    data_dir: str = setting("", "where TFDS keeps its data sets; empty is TFDS' own default")
    train_split: str = setting("", "a TFDS split to train on, such as train[:90%]; empty is train")
    eval_split: str = setting("", "a TFDS split to evaluate on; empty is the first of validation, test, val")
    first_label: int = setting(
        0, "label of the first class in TFRecord shards; 1 in TensorFlow's ImageNet shards", at_least=0, at_most=1
    )
    num_classes: int = setting(0, "number of classes; 0 is the data set's own", at_least=0)
    synthetic_images: int = setting(1024, "images in the synthetic data set", at_least=1)
    image_size: int = setting(224, "height and width in pixels that the network sees (2.1)", at_least=1)
    transform: str = setting(
        "imagenet",
        "imagenet: random resized crop (2.1); cifar: pad, crop, flip; plain: resize only",
        choices=("imagenet", "cifar", "plain"),
    )
    flip: bool = setting(True, "flip half of the training images left to right (2.1)")
    min_area: float = setting(0.08, "smallest area of the random crop, of the image's (2.1)", above=0, at_most=1)
    crop_padding: int = setting(4, "pixels padded on each side before the cifar crop", at_least=0)
    color_jitter: float = setting(
        0.4, "hue, saturation and brightness are scaled by U(1-x, 1+x); 0 is off (2.1)", at_least=0, at_most=1
    )
    pca_noise: float = setting(0.1, "standard deviation of the PCA noise's coefficients; 0 is off (2.1)", at_least=0)
    eval_crop: float = setting(
        0.875, "side of the evaluation's centre crop, of the shorter edge (2.1)", above=0, at_most=1
    )
    scaled_eval: bool = setting(False, "decode large JPEGs at 1/2, 1/4 or 1/8 in evaluation too: faster, not exact")
    cache: bool = setting(False, "keep the records in memory, still encoded: for small data sets")
    shuffle_buffer: int = setting(
        8192, "encoded records that shuffling TFDS and TFRecord sets holds in memory", at_least=1
    )
    max_corrupt: int = setting(
        10, "images that may fail to decode, named and skipped, before the run stops", at_least=0
    )

    model: str = setting("resnet50_a", "the network; `keras-bot models` lists them (2.1, 4)", section="Model")
    width: float = setting(1.0, "factor on the network's channels", above=0)
    zero_gamma: bool = setting(False, "gamma = 0 in the last batch norm of every residual block (3.1)")

    epochs: int = setting(120, "epochs (2.1; 200 with mixup, 5.4)", section="Optimisation", at_least=1)
    batch_size: int = setting(256, "images in a step, over all replicas (2.1)", at_least=1)
    learning_rate: float = setting(0.1, "the peak learning rate (2.1)", above=0)
    linear_scaling: bool = setting(False, f"scale the learning rate by batch_size / {REFERENCE_BATCH_SIZE} (3.1)")
    warmup_epochs: float = setting(0.0, "epochs in which the learning rate rises from 0 to its peak (3.1)", at_least=0)
    schedule: str = setting(
        "step", "the learning rate after the warmup (2.1, 5.1)", choices=("step", "cosine", "poly", "constant")
    )
    decay_epochs: tuple[int, ...] = setting((30, 60, 90), "epochs at which the step schedule decays (2.1)")
    decay_factor: float = setting(0.1, "factor of one decay of the step schedule (2.1)", above=0, at_most=1)
    optimizer: str = setting(
        "nag", "nag, the paper's (2.1), or adamw, for new heads in few steps", choices=("nag", "adamw")
    )
    global_clipnorm: float = setting(0.0, "global norm that the gradient is clipped to; 0 is off", at_least=0)
    momentum: float = setting(0.9, "Nesterov momentum of nag (2.1)", at_least=0, below=1)
    weight_decay: float = setting(1e-4, "L2 penalty, added to the gradient (2.1); adamw's is decoupled", at_least=0)
    no_bias_decay: bool = setting(False, "decay convolution and dense kernels only, no bias, gamma, beta (3.1)")
    precision: str = setting(
        "float32",
        "dtype policy; logits and loss are always float32 (3.2)",
        choices=("float32", "mixed_float16", "mixed_bfloat16"),
    )

    label_smoothing: float = setting(
        0.0,
        "epsilon taken from the true class and shared by the others (5.2)",
        section="Refinements",
        at_least=0,
        below=1,
    )
    mixup_alpha: float = setting(0.0, "lambda ~ Beta(alpha, alpha) of mixup; 0 is off (5.4)", at_least=0)
    mixup_off_epochs: int = setting(0, "last epochs that train without mixup", at_least=0)
    teacher: str = setting(
        "",
        "the distillation's teacher: a run directory, .keras, SavedModel or keras-hub preset; empty is off (5.3)",
    )
    distill_temperature: float = setting(20.0, "T of the distillation (5.3)", above=0)
    distill_hard_weight: float | None = setting(
        None,
        "GluonCV's form: w * hard + (1 - w) * T^2 * soft; not given is the paper's hard + T^2 * soft (5.3)",
        at_least=0,
        at_most=1,
    )
    teacher_cache: str = setting(
        "", "directory that keeps what the teacher says of each image, for later runs on the same batches; empty is off"
    )
    teacher_top_k: int = setting(
        0, "classes an image that the teacher_cache keeps, the likeliest; 0 keeps all logits", at_least=0
    )

    init_from: str = setting(
        "",
        "SavedModel, run directory or .keras to take the weights from; the head only where the classes are the same",
        section="Transfer",
    )
    frozen_stages: int = setting(
        0, "parts that stay as they are: 1 the stem, 2 and the first stage, … 5", at_least=0, at_most=5
    )
    freeze_bn: bool = setting(False, "batch norm stays in inference mode, its weights as they are")
    layer_decay: float = setting(
        1.0, "factor on the learning rate for each part of the network below the head", above=0, at_most=1
    )

    task: str = setting(
        "classification",
        "classification, or detection or segmentation (6) on the features of `model`",
        choices=("classification", "detection", "segmentation"),
    )
    head: str = setting(
        "",
        "of detection faster_rcnn (over a pyramid), faster_rcnn_c4 (over C4), retinanet; of segmentation fcn, "
        "deeplabv3plus; empty is the first (6)",
        choices=("", "retinanet", "faster_rcnn", "faster_rcnn_c4", "fcn", "deeplabv3plus"),
    )
    head_channels: int = setting(0, "width of the head; 0 is its own", at_least=0)
    output_stride: int = setting(0, "of the features, 8, 16 or 32, by dilation; 0 is 8 for segmentation, else 32 (6)")
    anchor_scale: float = setting(0.0, "smallest anchor of a level over its stride; 0 is the head's own", at_least=0)
    min_zoom: float = setting(
        0.5, "smallest factor by which training images of detection, segmentation are scaled", above=0
    )
    max_zoom: float = setting(2.0, "the largest", above=0)
    base_size: int = setting(
        0, "pixels of the shorter edge of segmentation's training images before the zoom; 0 leaves them", at_least=0
    )
    map_metric: str = setting(
        "voc", "mAP: voc (area), voc07 (11 points), at IoU 0.5; or coco", choices=("voc", "voc07", "coco")
    )

    strategy: str = setting(
        "auto",
        "auto: multi_worker where TF_CONFIG is set, mirrored where there are several GPUs, else one device",
        section="Machine",
        choices=("auto", "one_device", "mirrored", "multi_worker"),
    )
    sync_bn: bool = setting(
        False, "batch norm over the batches of all replicas, not over each replica's own; on JAX it always is"
    )
    accumulation_steps: int = setting(
        1, "parts that a replica works through one after the other in a step, for its memory", at_least=1
    )
    shard_by: str = setting(
        "example",
        "what several workers share out: example, the same batches as one worker would take; file, record files",
        choices=("example", "file"),
    )
    checkpoint_every: int = setting(0, "steps between checkpoints, besides those at the ends of epochs", at_least=0)
    keep_checkpoints: int = setting(2, "checkpoints that are kept, the newest", at_least=1)
    augment_on: str = setting(
        "host", "where colour and mixup are computed: device leaves the CPU the decoding", choices=("host", "device")
    )
    ram_budget: int = setting(1024, "MiB that the input pipeline's buffers may grow to", at_least=1)
    jit_compile: str = setting(
        "auto", "compile the step with XLA; auto: on a single GPU only, on JAX always", choices=("auto", "on", "off")
    )
    seed: int = setting(0, "of the weights, the order and every random draw", at_least=0, at_most=MOST_SEED)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _plain(field, getattr(self, field.name)))
            _check(field, getattr(self, field.name))
        if self.warmup_epochs >= self.epochs:
            raise MisuseError(
                f"Expected warmup_epochs below epochs, received warmup_epochs={self.warmup_epochs:g} and "
                f"epochs={self.epochs}. Shorten the warmup or train longer."
            )
        whole = all(isinstance(epoch, int) and epoch >= 1 for epoch in self.decay_epochs)
        if not whole or list(self.decay_epochs) != sorted(set(self.decay_epochs)):
            raise MisuseError(
                f"Expected decay_epochs as rising whole epochs from 1 on, received {list(self.decay_epochs)}."
            )
        if self.schedule == "step" and self.decay_epochs and self.decay_epochs[0] <= self.warmup_epochs:
            raise MisuseError(
                f"Expected decay_epochs after the warmup of {self.warmup_epochs:g} epochs, "
                f"received {self.decay_epochs[0]}. Decay later or shorten the warmup."
            )
        if self.head and self.task == "classification":
            raise MisuseError(
                f"Expected no --head for classification, received {self.head}. Give its --task, or drop it."
            )
        if self.mixup_off_epochs > self.epochs or (self.mixup_alpha and self.mixup_off_epochs == self.epochs):
            raise MisuseError(
                f"Expected mixup_off_epochs below epochs={self.epochs}, received {self.mixup_off_epochs}: mixup would "
                "never be on. Lower it, or drop both."
            )
        if self.distill_hard_weight is not None and not self.teacher:
            raise MisuseError("distill_hard_weight has no effect without a teacher. Give --teacher or drop it.")
        if self.teacher_cache and not self.teacher:
            raise MisuseError("teacher_cache has no effect without a teacher. Give --teacher or drop it.")
        if self.teacher_top_k and not self.teacher_cache:
            raise MisuseError("teacher_top_k has no effect without a teacher_cache. Give one or drop it.")

    def as_text(self) -> dict[str, str]:
        """Returns all field values in order, formatted as flag values; fields that are None are omitted."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: _as_text(value) for name, value in values.items() if value is not None}

    def flag_lines(self) -> list[str]:
        """Returns the lines of a flagfile that reproduces the recipe."""
        return [f"--{name}={value}" for name, value in self.as_text().items()]


def read_flag_lines(text: str) -> dict[str, str]:
    """Parses the output of `flag_lines` into the form of `as_text`, ignoring other lines."""
    lines = (line[2:].partition("=") for line in text.splitlines() if line.startswith("--"))
    return with_current_names({name: value for name, _, value in lines})


def with_current_names(stored: dict[str, str]) -> dict[str, str]:
    """Renames fields that a file of an earlier version has under their old names."""
    return {RENAMED.get(name, name): value for name, value in stored.items()}


def current_names(names: Iterable[str]) -> tuple[str, ...]:
    """Returns names of fields with those of an earlier version replaced."""
    return tuple(RENAMED.get(name, name) for name in names)


def differences(stored: dict[str, str], recipe: Recipe, ignored: Sequence[str] = ()) -> list[str]:
    """Lists the fields whose stored value differs from `recipe`, one line per field.

    Args:
        stored: result of `as_text`. A missing field was added later and is taken to have its default.
        recipe: the recipe to compare with.
        ignored: fields that may differ.
    """
    stored, wanted = {**Recipe().as_text(), **with_current_names(stored)}, recipe.as_text()
    return [
        f"{name} was {stored.get(name, 'unset')}, is {wanted.get(name, 'unset')}"
        for name in {**wanted, **stored}
        if name not in ignored and not _same(name, stored.get(name), wanted.get(name))
    ]


def _same(name, one, other):
    """Returns whether two values of a field are equal, or are paths to the same place, such as photos/ and photos."""
    if one == other or name not in PATHS or not one or not other:
        return one == other
    absolute = [[os.path.abspath(os.path.expanduser(part)) for part in text.split("+")] for text in (one, other)]
    return absolute[0] == absolute[1]


def tidy_paths(values: dict[str, str]) -> dict[str, str]:
    """Normalizes the paths among field values, so that workers may spell the same path differently."""
    return {name: os.path.normpath(value) if name in PATHS and value else value for name, value in values.items()}


def _plain(field, value):
    """Converts equivalent types to the field's own: an int to float, a list to a tuple, NumPy scalars to Python's."""
    if isinstance(value, list | tuple):
        return tuple(_python(item) for item in value)
    value = _python(value)
    if field.type in (float, float | None) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _python(value):
    """Converts a NumPy scalar to a Python number; returns other values unchanged."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _check(field, value):
    kinds = {float | None: float | None, tuple[int, ...]: tuple}
    expected = kinds.get(field.type, field.type)
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        name = getattr(expected, "__name__", str(expected))
        raise MisuseError(f"Expected {field.name} as {name}, received {value!r}.")
    choices = field.metadata["choices"]
    if choices and value not in choices:
        raise MisuseError(f"Expected {field.name} to be one of {', '.join(choices)}, received {value!r}.")
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_bounds(field, value)


def _check_bounds(field, value):
    relations = {
        "at_least": (lambda x, bound: x >= bound, "at least"),
        "at_most": (lambda x, bound: x <= bound, "at most"),
        "below": (lambda x, bound: x < bound, "below"),
        "above": (lambda x, bound: x > bound, "above"),
    }
    bounds = {name: bound for name, bound in field.metadata["bounds"].items() if bound is not None}
    holds = all(relations[name][0](value, bound) for name, bound in bounds.items())
    if not (holds and math.isfinite(value)):
        wanted = " and ".join([*(f"{relations[name][1]} {_number(bound)}" for name, bound in bounds.items()), "finite"])
        raise MisuseError(f"Expected {field.name} {wanted}, received {_number(value)}.")


def _number(value):
    return str(value) if isinstance(value, int) else f"{value:g}"


def _as_text(value):
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
