"""Gradual warmup of the learning rate (section 3.1).

What: initial weights are far from any solution, so large steps at the start are unstable. Increase the rate
    linearly to the peak, at every step, then continue with the wrapped schedule.
Equation: at update i = 1 … m the rate is i * eta / m, where eta = schedule(0); afterwards schedule(step - m).
    Keras counts steps from 0, so step s < m has (s + 1) * eta / m: the first update isn't wasted on a rate of 0,
    and the last of the m steps uses eta. (GluonCV counts i from 0 and wastes the first update.)
Shapes and dtypes: step is an integer or float scalar; the rate is a float32 scalar.
The paper's value: m = the number of steps in the first 5 epochs.
Interactions: the wrapped schedule counts from the end of the warmup, so the `decay_steps` of `CosineDecay` and the
    boundaries of `StepDecay` are in steps after the warmup. Any Keras schedule can be wrapped.
Reference: Goyal et al., arXiv 1706.02677, section 2.2; He et al., CVPR 2019, section 3.1.
"""

import numbers
from typing import Any, Self

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_bot.tensors import Tensor


@keras.saving.register_keras_serializable(package="keras_bot")
class Warmup(LearningRateSchedule):
    """Learning rate schedule that rises linearly to `schedule`'s initial rate, then follows `schedule`.

    Args:
        schedule: constant rate above 0, or `LearningRateSchedule`, to follow after the warmup.
        warmup_steps: number of warmup updates m, at least 1.

    Raises:
        ValueError: if the schedule has another type or a number is out of range.
    """

    def __init__(self, schedule: float | LearningRateSchedule, warmup_steps: int) -> None:
        super().__init__()
        is_constant = isinstance(schedule, numbers.Real) and not isinstance(schedule, bool)
        if not is_constant and not isinstance(schedule, LearningRateSchedule):
            raise ValueError(f"schedule must be a number or a LearningRateSchedule, received {schedule!r}.")
        if is_constant and not schedule > 0:
            raise ValueError(f"schedule is a constant learning rate, so it must be above 0, received {schedule!r}.")
        is_whole = isinstance(warmup_steps, numbers.Integral) and not isinstance(warmup_steps, bool)
        if not is_whole or warmup_steps < 1:
            raise ValueError(f"warmup_steps must be an integer of at least 1, received {warmup_steps!r}.")
        self.schedule = float(schedule) if is_constant else schedule
        self.warmup_steps = int(warmup_steps)

    def __call__(self, step: int | Tensor) -> Tensor:
        """Returns the learning rate of update `step`, counted from 0."""
        step = ops.convert_to_tensor(step)
        progress = (ops.cast(step, "float32") + 1.0) / self.warmup_steps
        after = ops.maximum(step - self.warmup_steps, 0)
        return ops.where(step < self.warmup_steps, progress * self._rate(0), self._rate(after))

    def _rate(self, step):
        rate = self.schedule(step) if isinstance(self.schedule, LearningRateSchedule) else self.schedule
        return ops.cast(rate, "float32")

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments, with the wrapped schedule serialized."""
        schedule = self.schedule
        if isinstance(schedule, LearningRateSchedule):
            schedule = keras.saving.serialize_keras_object(schedule)
        return {"schedule": schedule, "warmup_steps": self.warmup_steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Builds the schedule from `get_config`'s result."""
        schedule = config["schedule"]
        if isinstance(schedule, dict):
            schedule = keras.saving.deserialize_keras_object(schedule)
        return cls(**{**config, "schedule": schedule})
