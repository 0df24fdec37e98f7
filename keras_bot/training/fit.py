"""`fit` that can start at any step of any epoch, with any strategy."""

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf

from keras_bot.training.distributed.strategy import Strategy


@dataclasses.dataclass(frozen=True)
class FitPlan:
    """Start and length of a training.

    Args:
        first_epoch, first_step: start, counted from 0. `first_step` is `steps_per_epoch` if only the evaluation of
            the first epoch is left.
        epochs, steps_per_epoch: totals of the whole training.
        replica_batch: per-replica batch size.
    """

    first_epoch: int
    first_step: int
    epochs: int
    steps_per_epoch: int
    replica_batch: int

    def segments(self) -> list[tuple[int, int, int]]:
        """Returns epoch, first step and end epoch of each call of Keras' `fit`.

        Keras can only start at the beginning of an epoch, so the rest of an epoch is a `fit` of one epoch with fewer
        steps. Callbacks see its steps numbered from 0.
        """
        first, step = self.first_epoch, self.first_step
        segments = [(first, step, first + 1), (first + 1, 0, self.epochs)] if step else [(first, 0, self.epochs)]
        return [(epoch, step, end) for epoch, step, end in segments if epoch < end]


def fit_from(
    trainee: keras.Model,
    train_data: Callable[[int, int], tf.data.Dataset],
    eval_data: tf.data.Dataset,
    strategy: Strategy,
    plan: FitPlan,
    *,
    callbacks: list[keras.callbacks.Callback],
    verbose: int,
) -> None:
    """Trains from the plan's first step to the end, with an evaluation after each epoch.

    Args:
        trainee: compiled model with its optimizer built.
        train_data: `train_data(epoch, step)` returns this worker's batches from there to the end of training.
        eval_data: this worker's batches of images, labels and weights.
        strategy: strategy of the run.
        plan: start and length of the training.
        callbacks, verbose: as in Keras' `fit`.
    """
    strategy.build_from_spec(trainee, eval_data.rebatch(plan.replica_batch))
    spread_eval_data = strategy.spread(eval_data, plan.replica_batch)
    eval_steps = int(eval_data.cardinality())
    with strategy.fitting():
        for epoch, step, end_epoch in plan.segments():
            if step == plan.steps_per_epoch:
                _evaluate_epoch(trainee, epoch, callbacks, spread_eval_data, eval_steps)
                continue
            trainee.fit(
                strategy.spread(train_data(epoch, step), plan.replica_batch),
                initial_epoch=epoch,
                epochs=end_epoch,
                steps_per_epoch=plan.steps_per_epoch - step,
                validation_data=spread_eval_data,
                validation_steps=eval_steps,
                shuffle=False,
                callbacks=callbacks,
                verbose=verbose,
            )


def _evaluate_epoch(trainee, epoch, callbacks, eval_data, steps):
    """Evaluates and calls the callbacks like `fit` at the end of an epoch whose training steps are all done."""
    callbacks = keras.callbacks.CallbackList(callbacks, model=trainee)
    trainee.reset_metrics()
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(epoch)
    logs = trainee.get_metrics_result()
    eval_logs = trainee.evaluate(eval_data, steps=steps, callbacks=callbacks, return_dict=True, verbose=0)
    logs = {name: float(value) for name, value in logs.items()}
    callbacks.on_epoch_end(epoch, {**logs, **{f"val_{name}": value for name, value in eval_logs.items()}})
    callbacks.on_train_end()
