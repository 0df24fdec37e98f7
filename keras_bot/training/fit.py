"""`fit` that can start at any step of any epoch, with any strategy."""

from collections.abc import Callable

import keras
import tensorflow as tf

from keras_bot.training.distributed.strategy import Strategy


def fit_from(
    trainee: keras.Model,
    train_data: Callable[[int, int], tf.data.Dataset],
    eval_data: tf.data.Dataset,
    strategy: Strategy,
    *,
    epoch: int,
    step: int,
    epochs: int,
    steps_per_epoch: int,
    replica_batch: int,
    callbacks: list[keras.callbacks.Callback],
    verbose: int,
):
    """Trains the remaining steps of epoch `epoch`, after its first `step` steps, then the other epochs up to `epochs`.

    Keras can only start at the beginning of an epoch, so the rest of an epoch is a `fit` of one epoch with fewer steps.
    Callbacks see that epoch's remaining steps numbered from 0.

    Args:
        trainee: compiled model with its optimizer built.
        train_data: `train_data(epoch, step)` returns this worker's batches from there to the end of training.
        eval_data: this worker's batches of images, labels and weights.
        strategy: strategy of the run.
        epoch, step: start, counted from 0. `step` may be `steps_per_epoch` if only the evaluation is left.
        epochs, steps_per_epoch: totals of the whole training.
        replica_batch: per-replica batch size.
        callbacks, verbose: as in Keras' `fit`.
    """
    strategy.build_from_spec(trainee, eval_data.rebatch(replica_batch))
    validation = {
        "validation_data": strategy.spread(eval_data, replica_batch),
        "validation_steps": int(eval_data.cardinality()),
    }

    def fit(epoch, step, last):
        trainee.fit(
            strategy.spread(train_data(epoch, step), replica_batch),
            initial_epoch=epoch,
            epochs=last,
            steps_per_epoch=steps_per_epoch - step,
            shuffle=False,
            callbacks=callbacks,
            verbose=verbose,
            **validation,
        )

    with strategy.fitting():
        if step == steps_per_epoch:
            _evaluate_epoch(trainee, epoch, callbacks, *validation.values())
        elif step:
            fit(epoch, step, epoch + 1)
        epoch += bool(step)
        if epoch < epochs:
            fit(epoch, 0, epochs)


def _evaluate_epoch(trainee, epoch, callbacks, eval_data, steps):
    """Evaluates and calls the callbacks like `fit` at the end of an epoch whose training steps are all done."""
    callbacks = keras.callbacks.CallbackList(callbacks, model=trainee)
    trainee.reset_metrics()
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(epoch)
    logs = trainee.get_metrics_result()
    evaluated = trainee.evaluate(eval_data, steps=steps, callbacks=callbacks, return_dict=True, verbose=0)
    logs = {name: float(value) for name, value in logs.items()}
    callbacks.on_epoch_end(epoch, {**logs, **{f"val_{name}": value for name, value in evaluated.items()}})
    callbacks.on_train_end()
