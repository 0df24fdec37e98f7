"""The recipe: all fields of a training run, with type, default, help and range.

The defaults are the paper's baseline (section 2.1: ResNet-50, batch 256, step decay, no tricks). Command-line flags,
`run.flags` and the flagfile tests are derived from this module. It only depends on the standard library.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial

from keras_bot.deprecation import renamed_fields
from keras_bot.recipe import checks, fields
from keras_bot.recipe.fields import setting

REFERENCE_BATCH_SIZE = 256
MAX_SEED = 2**32 - 1  # largest seed that Keras accepts
TASKS = ("classification", "detection", "segmentation")
RENAMED = {  # names of fields in version 0.1.0 -> names today
    "shard": "shard_by",
    "map_form": "map_metric",
    "keep": "keep_checkpoints",
    "accumulate": "accumulation_steps",
    "jit": "jit_compile",
    "clip_norm": "global_clipnorm",
}

# Fields that only some tasks use; the help of the other tasks leaves them out.
_classifier = partial(setting, tasks=("classification",))
_detector = partial(setting, tasks=("detection",))
_segmenter = partial(setting, tasks=("segmentation",))
_transfer = partial(setting, tasks=("detection", "segmentation"))


@renamed_fields(**RENAMED)
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Configuration of a training run: model, data and tricks. Raises MisuseError for invalid values.

    Section numbers in the help are the paper's (He et al., CVPR 2019, arXiv 1812.01187).
    """

    dataset: str = setting(
        "imagenet2012",
        "digits (included), a TFDS name, a folder with train/CLASS/*.jpg and val/CLASS/*.jpg, a folder of TFRecord "
        "shards, an .npz file with x_train, y_train, x_test and y_test, or synthetic; docs/data.md describes them, "
        "docs/transfer.md data with boxes and masks",
        section="Data",
    )
    data_dir: str = setting("", "TFDS data directory; empty uses the default of TFDS")
    train_split: str = setting("", "TFDS split to train on, such as train[:90%]; empty uses train", advanced=True)
    eval_split: str = setting(
        "", "TFDS split to evaluate on; empty uses the first of validation, test and val", advanced=True
    )
    first_label: int = _classifier(
        0,
        "label of the first class in TFRecord shards: 1 in TensorFlow's ImageNet",
        advanced=True,
        at_least=0,
        at_most=1,
    )
    num_classes: int = setting(0, "number of classes; 0 infers it from the data set", advanced=True, at_least=0)
    synthetic_images: int = _classifier(1024, "number of images in --dataset=synthetic", advanced=True, at_least=1)
    image_size: int = setting(224, "height and width of the network's input in pixels (2.1)", at_least=1)
    transform: str = _classifier(
        "imagenet",
        "preprocessing: imagenet (random resized crop, 2.1), cifar (pad, crop and flip) or plain (resize only)",
        choices=("imagenet", "cifar", "plain"),
    )
    flip: bool = setting(True, "flip half of the training images horizontally (2.1)")
    min_area: float = _classifier(
        0.08, "minimum area of the random resized crop, as a fraction (2.1)", above=0, at_most=1
    )
    crop_padding: int = _classifier(4, "padding on each side before the random cifar crop, in pixels", at_least=0)
    color_jitter: float = setting(
        0.4, "scale hue, saturation, brightness by U(1-x, 1+x); 0 is off (2.1)", at_least=0, at_most=1
    )
    pca_noise: float = setting(0.1, "standard deviation of the PCA noise coefficients; 0 is off (2.1)", at_least=0)
    eval_crop: float = _classifier(
        0.875, "side of the evaluation crop, as a fraction of the shorter edge (2.1)", advanced=True, above=0, at_most=1
    )
    scaled_eval: bool = _classifier(
        False, "decode large JPEGs at reduced size in evaluation too: faster, but inexact", advanced=True
    )
    cache: bool = _classifier(False, "cache the encoded records in memory, for small data sets")
    shuffle_buffer: int = setting(
        8192, "size of the shuffle buffer of TFDS and TFRecord data sets, in records", advanced=True, at_least=1
    )
    max_corrupt: int = setting(10, "maximum number of corrupt images to skip and report", advanced=True, at_least=0)

    model: str = setting("resnet50_a", "network; `keras-bot models` lists them (2.1, 4)", section="Model")
    width: float = setting(1.0, "width multiplier: scales the number of channels of every layer", above=0)
    zero_gamma: bool = setting(False, "initialise gamma of the last batch norm in each residual block with 0 (3.1)")

    epochs: int = setting(120, "number of epochs (2.1; 200 with mixup, 5.4)", section="Optimisation", at_least=1)
    batch_size: int = setting(256, "global batch size: images per step over all replicas (2.1)", at_least=1)
    learning_rate: float = setting(0.1, "peak learning rate (2.1)", above=0)
    linear_scaling: bool = setting(False, f"scale the learning rate by batch_size / {REFERENCE_BATCH_SIZE} (3.1)")
    warmup_epochs: float = setting(0.0, "epochs of linear warmup from 0 to the peak learning rate (3.1)", at_least=0)
    schedule: str = setting(
        "step",
        "learning rate schedule: step, cosine, poly or constant (2.1, 5.1)",
        choices=("step", "cosine", "poly", "constant"),
    )
    decay_epochs: tuple[int, ...] = setting((30, 60, 90), "epochs at which the step schedule decays (2.1)")
    decay_factor: float = setting(0.1, "factor per decay of the step schedule (2.1)", advanced=True, above=0, at_most=1)
    optimizer: str = setting(
        "nag", "nag (SGD with Nesterov momentum, 2.1) or adamw, for fine-tuning in few steps", choices=("nag", "adamw")
    )
    global_clipnorm: float = setting(0.0, "clip the gradient to this global norm; 0 is off", advanced=True, at_least=0)
    momentum: float = setting(0.9, "Nesterov momentum of nag (2.1)", advanced=True, at_least=0, below=1)
    weight_decay: float = setting(1e-4, "L2 penalty added to the gradient (2.1), decoupled for adamw", at_least=0)
    no_bias_decay: bool = setting(False, "apply weight decay only to kernels, not to biases, gamma and beta (3.1)")
    precision: str = setting(
        "float32",
        "dtype policy: float32, mixed_float16 or mixed_bfloat16 (3.2)",
        choices=("float32", "mixed_float16", "mixed_bfloat16"),
    )

    label_smoothing: float = _classifier(
        0.0, "epsilon of label smoothing; 0 is off (5.2)", section="Refinements", at_least=0, below=1
    )
    mixup_alpha: float = _classifier(0.0, "alpha of mixup, lambda ~ Beta(alpha, alpha); 0 is off (5.4)", at_least=0)
    mixup_off_epochs: int = _classifier(0, "number of final epochs without mixup", at_least=0)
    teacher: str = _classifier(
        "", "distillation teacher: a run directory, .keras, SavedModel or keras-hub preset (5.3)"
    )
    distill_temperature: float = _classifier(20.0, "temperature T of distillation (5.3)", above=0)
    distill_hard_weight: float | None = _classifier(
        None,
        "w in GluonCV's loss w * hard + (1 - w) * T^2 * soft; unset uses the paper's hard + T^2 * soft (5.3)",
        advanced=True,
        at_least=0,
        at_most=1,
    )
    teacher_cache: str = _classifier("", "directory that caches the teacher's outputs for later runs; empty is off")
    teacher_top_k: int = _classifier(
        0, "number of logits per image in the teacher cache, the largest ones; 0 keeps all", advanced=True, at_least=0
    )

    init_from: str = setting(
        "",
        "initial weights: a SavedModel, run directory or .keras file; loads the head only for the same classes",
        section="Transfer",
    )
    frozen_stages: int = setting(
        0, "stages to freeze: 1 the stem, 2 also stage 1, … 5 all but the head", at_least=0, at_most=5
    )
    freeze_bn: bool = setting(False, "freeze batch norm: inference mode and fixed weights")
    layer_decay: float = setting(
        1.0,
        "layer-wise learning rate decay per stage below the head; 1 is off",
        tasks=("classification", "segmentation"),
        above=0,
        at_most=1,
    )

    task: str = setting(
        "classification",
        "classification, or detection or segmentation with --model as the backbone (6)",
        section="Task",
        choices=TASKS,
    )
    head: str = _transfer(
        "",
        "head: for detection faster_rcnn (feature pyramid), faster_rcnn_c4 (C4) or retinanet; for segmentation fcn or "
        "deeplabv3plus; empty uses the first (6)",
        choices=("", "retinanet", "faster_rcnn", "faster_rcnn_c4", "fcn", "deeplabv3plus"),
    )
    head_channels: int = _transfer(0, "channels of the head; 0 uses the head's default", advanced=True, at_least=0)
    output_stride: int = _transfer(
        0,
        "output stride of the backbone: 8, 16 or 32, by dilation; 0 uses 32 for detection, 8 for fcn, 16 for "
        "deeplabv3plus (6)",
        advanced=True,
    )
    anchor_scale: float = _detector(
        0.0,
        "size of the smallest anchor of a level, relative to its stride; 0 uses the head's default",
        advanced=True,
        at_least=0,
    )
    min_zoom: float = _transfer(0.5, "minimum random scale factor of training images", above=0)
    max_zoom: float = _transfer(2.0, "maximum random scale factor of training images", above=0)
    base_size: int = _segmenter(
        0, "shorter edge of training images before random scaling, in pixels; 0 keeps their size", at_least=0
    )
    map_metric: str = _detector(
        "voc",
        "mean average precision: voc (area under the curve) or voc07 (11 points), both at IoU 0.5, or coco",
        choices=("voc", "voc07", "coco"),
    )

    strategy: str = setting(
        "auto",
        "distribution: one_device, mirrored, multi_worker, or auto: multi_worker if TF_CONFIG is set, mirrored with "
        "several GPUs, else one_device",
        section="Machine",
        choices=("auto", "one_device", "mirrored", "multi_worker"),
        advanced=True,
    )
    sync_bn: bool = setting(False, "compute batch norm statistics over all replicas; always on with JAX", advanced=True)
    accumulation_steps: int = _classifier(
        1, "gradient accumulation: number of parts of each batch, to save memory", at_least=1
    )
    shard_by: str = _classifier(
        "example",
        "how workers share the data: by example (the same batches as with one worker) or by record file",
        choices=("example", "file"),
        advanced=True,
    )
    checkpoint_every: int = setting(0, "steps between checkpoints within an epoch; 0 is off", advanced=True, at_least=0)
    keep_checkpoints: int = setting(2, "number of newest checkpoints to keep", advanced=True, at_least=1)
    augment_on: str = _classifier(
        "host",
        "where colour augmentation and mixup run: host (in the input pipeline) or device (in the training step)",
        choices=("host", "device"),
        advanced=True,
    )
    ram_budget: int = setting(1024, "memory limit of the input pipeline's buffers in MiB", advanced=True, at_least=1)
    jit_compile: str = setting(
        "auto",
        "compile the training step with XLA: on, off, or auto (on with a single GPU and with JAX)",
        choices=("auto", "on", "off"),
        advanced=True,
    )
    seed: int = setting(0, "seed of the weights, the data order and all sampling", at_least=0, at_most=MAX_SEED)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, fields.convert(field, getattr(self, field.name)))
            fields.check(field, getattr(self, field.name))
        checks.check(self)

    def as_text(self) -> dict[str, str]:
        """Returns all field values in order, formatted as flag values; fields that are None are omitted."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: fields.as_text(value) for name, value in values.items() if value is not None}

    def flag_lines(self) -> list[str]:
        """Returns the lines of a flagfile that reproduces the recipe."""
        return [f"--{name}={value}" for name, value in self.as_text().items()]
