"""The paper's tricks as small, independent Keras objects that work with any Keras model.

| paper | trick | kind |
|---|---|---|
| 3.1 | `linear_scaling` | function of the batch size |
| 3.1 | `Warmup` | learning rate schedule that wraps a schedule |
| 3.1 | `zero_gamma` | function on a functional model |
| 2.1, 3.1 | `NAG`, `is_kernel`, `split_by_decay` | optimizer that decays kernels only |
| 3.2 | `mixed_precision` | context manager |
| 3.2 | `LossScaling` | optimizer that wraps an optimizer |
| 2.1, 5.1 | `StepDecay`, `CosineDecay`, `PolyDecay` | learning rate schedules |
| 5.2 | `smooth`, `SmoothedCrossentropy` | function, loss |
| 5.3 | `distillation_loss`, `SoftCrossentropy`, `DistillationModel` | function, loss, model |
| 5.4 | `mixup`, `mix_batch`, `symmetric_beta`, `is_mixed_epoch`, `MixUp` | functions, layer |
| | `MixUpOff`, `LearningRateLog`, `StopOnNonFinite` | callbacks |

Importing this package registers its classes with Keras, so that `keras.saving.load_model` can find them.
"""

from keras_bot.deprecation import renamed_names
from keras_bot.tricks.callbacks import LearningRateLog, MixUpOff, NonFiniteLoss, StopOnNonFinite
from keras_bot.tricks.decay import CosineDecay, PolyDecay, StepDecay
from keras_bot.tricks.distillation import DistillationModel, SoftCrossentropy, distillation_loss
from keras_bot.tricks.label_smoothing import SmoothedCrossentropy, smooth
from keras_bot.tricks.loss_scaling import LossScaling
from keras_bot.tricks.lr_scaling import linear_scaling
from keras_bot.tricks.mixup import MixUp, is_mixed_epoch, mix_batch, mixup, symmetric_beta
from keras_bot.tricks.nag import NAG
from keras_bot.tricks.no_bias_decay import is_kernel, split_by_decay
from keras_bot.tricks.precision import mixed_precision
from keras_bot.tricks.warmup import Warmup
from keras_bot.tricks.zero_gamma import zero_gamma

__all__ = [
    "NAG",
    "CosineDecay",
    "DistillationModel",
    "LearningRateLog",
    "LossScaling",
    "MixUp",
    "MixUpOff",
    "NonFiniteLoss",
    "PolyDecay",
    "SmoothedCrossentropy",
    "SoftCrossentropy",
    "StepDecay",
    "StopOnNonFinite",
    "Warmup",
    "distillation_loss",
    "is_kernel",
    "is_mixed_epoch",
    "linear_scaling",
    "mix_batch",
    "mixed_precision",
    "mixup",
    "smooth",
    "split_by_decay",
    "symmetric_beta",
    "zero_gamma",
]

__getattr__ = renamed_names(
    __name__,
    {
        "Distiller": "keras_bot.tricks.distillation.DistillationModel",
        "check_logits": "keras_bot.tricks.logits.check_logits",
        "draw_weight": "keras_bot.tricks.mixup.draw_weight",
        "mix_with_reversal": "keras_bot.tricks.mixup.mix_with_reversal",
        "policy_of": "keras_bot.tricks.precision.policy_of",
        "recast": "keras_bot.surgery.recast",
    },
)
