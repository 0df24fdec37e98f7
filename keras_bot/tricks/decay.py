"""Learning rate decay: step (section 2.1), cosine (section 5.1), and polynomial, for segmentation.

What: the learning rate falls during training. Step decay keeps it constant between given steps. Cosine decay
    lowers it slowly at first, almost linearly in the middle and slowly at the end, with no boundaries to choose.
    Polynomial decay is nearly linear; GluonCV and others train segmentation with it.
Equation: steps: eta_t = eta * factor^k, k = the number of boundaries <= t.
    Cosine: eta_t = 1/2 * (1 + cos(t * pi / T)) * eta, t clipped to 0 … T, so that the rate stays 0 after T.
    Polynomial: eta_t = (1 - t / T)^power * eta, t clipped as well.
Shapes and dtypes: t is an integer or float scalar, counted in updates from 0; the rate is a float32 scalar.
The paper's value: factor 0.1 at epochs 30, 60, 90 of 120; cosine decay over all epochs after the warmup, updated
    per batch.
Interactions: inside `Warmup`, t counts from the end of the warmup. For a decay at epoch 30 after 5 warmup
    epochs, pass the number of steps in 25 epochs. Update `boundary` is the first with the lower rate (Keras'
    PiecewiseConstantDecay decays one update later).
Reference: Loshchilov and Hutter, "SGDR", arXiv 1608.03983; He et al., CVPR 2019, sections 2.1 and 5.1.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_bot.deprecation import renamed_arguments, renamed_attributes
from keras_bot.tensors import Tensor

_RENAMED = {"learning_rate": "initial_learning_rate"}  # arguments of version 0.1.0


class _Decay(LearningRateSchedule):
    """Base class of the decays. The attribute `learning_rate` is an old name of `initial_learning_rate`."""

    __getattr__ = renamed_attributes(**_RENAMED)

    def __init__(self, initial_learning_rate: float) -> None:
        super().__init__()
        if not initial_learning_rate > 0:
            raise ValueError(f"initial_learning_rate must be above 0, received {initial_learning_rate!r}.")
        self.initial_learning_rate = initial_learning_rate

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {"initial_learning_rate": self.initial_learning_rate}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Builds the schedule from `get_config`'s result, also that of version 0.1.0."""
        return cls(**{_RENAMED.get(name, name): value for name, value in config.items()})


@keras.saving.register_keras_serializable(package="keras_bot")
class StepDecay(_Decay):
    """Learning rate schedule that multiplies the rate by `factor` at every boundary.

    Args:
        initial_learning_rate: learning rate before the first boundary, above 0.
        boundaries: strictly increasing update numbers, each at least 1, at which the rate drops.
        factor: above 0, at most 1.

    Raises:
        ValueError: if a value is out of range or the boundaries don't increase.
    """

    @renamed_arguments(**_RENAMED)
    def __init__(self, initial_learning_rate: float, boundaries: Sequence[int], factor: float = 0.1) -> None:
        super().__init__(initial_learning_rate)
        if not 0 < factor <= 1:
            raise ValueError(f"factor must be above 0 and at most 1, received {factor!r}.")
        boundaries = list(boundaries)
        if any(b < 1 for b in boundaries) or any(a >= b for a, b in itertools.pairwise(boundaries)):
            raise ValueError(f"boundaries must be increasing update numbers from 1, received {boundaries}.")
        self.boundaries = boundaries
        self.factor = factor

    def __call__(self, step: int | Tensor) -> Tensor:
        """Returns the learning rate of update `step`."""
        rates = [self.initial_learning_rate * self.factor**k for k in range(len(self.boundaries) + 1)]
        rate = ops.cast(rates[0], "float32")
        for boundary, lower in zip(self.boundaries, rates[1:], strict=True):
            rate = ops.where(step >= boundary, ops.cast(lower, "float32"), rate)
        return rate

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "boundaries": self.boundaries, "factor": self.factor}


@keras.saving.register_keras_serializable(package="keras_bot")
class CosineDecay(_Decay):
    """Learning rate schedule that decays to 0 along half a cosine.

    Args:
        initial_learning_rate: learning rate of update 0, above 0.
        decay_steps: T, the number of updates until the rate is 0, at least 1.

    Raises:
        ValueError: if a value is out of range.
    """

    @renamed_arguments(**_RENAMED)
    def __init__(self, initial_learning_rate: float, decay_steps: int) -> None:
        super().__init__(initial_learning_rate)
        if not decay_steps >= 1:
            raise ValueError(f"decay_steps must be at least 1, received {decay_steps!r}.")
        self.decay_steps = decay_steps

    def __call__(self, step: int | Tensor) -> Tensor:
        """Returns the learning rate of update `step`."""
        progress = ops.clip(ops.cast(step, "float32") / self.decay_steps, 0.0, 1.0)
        return 0.5 * (1.0 + ops.cos(progress * math.pi)) * self.initial_learning_rate

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "decay_steps": self.decay_steps}


@keras.saving.register_keras_serializable(package="keras_bot")
class PolyDecay(_Decay):
    """Learning rate schedule that decays to 0 as a power of the remaining fraction of the steps.

    Args:
        initial_learning_rate: learning rate of update 0, above 0.
        decay_steps: T, the number of updates until the rate is 0, at least 1.
        power: exponent above 0; 1 is linear.

    Raises:
        ValueError: if a value is out of range.
    """

    @renamed_arguments(**_RENAMED)
    def __init__(self, initial_learning_rate: float, decay_steps: int, power: float = 0.9) -> None:
        super().__init__(initial_learning_rate)
        if not decay_steps >= 1:
            raise ValueError(f"decay_steps must be at least 1, received {decay_steps!r}.")
        if not power > 0:
            raise ValueError(f"power must be above 0, received {power!r}.")
        self.decay_steps = decay_steps
        self.power = power

    def __call__(self, step: int | Tensor) -> Tensor:
        """Returns the learning rate of update `step`."""
        remaining = 1.0 - ops.clip(ops.cast(step, "float32") / self.decay_steps, 0.0, 1.0)
        return ops.power(remaining, self.power) * self.initial_learning_rate

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "decay_steps": self.decay_steps, "power": self.power}
