"""Loss, top-1 and top-5 of a network on a data set."""

import contextlib
import pathlib
import re
import zipfile

import keras
import tensorflow as tf

from keras_bot.data.source import run_error
from keras_bot.errors import MisuseError, RunError
from keras_bot.training import assemble


def evaluate(model: keras.Model, dataset: tf.data.Dataset, *, corrupt=None, verbose: int = 0) -> dict[str, float]:
    """Evaluates a network that gives logits.

    Args:
        model: takes float32 (batch, size, size, 3), gives (batch, classes) logits. It gets compiled.
        dataset: batches of images, one-hot labels and weights, as `assemble.evaluation_data` gives.
        corrupt: the data set's CorruptLog, for a clear error when too many images fail.
        verbose: Keras' 0, 1 or 2.

    Returns:
        loss (mean cross-entropy), top1 and top5 (fractions).

    Raises:
        RunError: if more images fail to decode than `corrupt` allows.
    """
    model.compile(
        loss=assemble.build_loss(),
        weighted_metrics=assemble.build_metrics(),
        jit_compile=False,
    )
    with clear_errors(corrupt):
        figures = model.evaluate(dataset, verbose=verbose, return_dict=True)
    figures["loss"] = figures.pop("cross_entropy")
    return figures


class ExactLoss(keras.callbacks.Callback):
    """Puts the exact loss of an evaluation in `fit`'s logs: before other callbacks, which then see it.

    Keras divides the weighted loss by the padded size of a batch; the metric `cross_entropy` divides by the weights.
    """

    def on_epoch_end(self, epoch, logs=None):  # noqa: D102
        logs.pop("cross_entropy", None)
        if "val_cross_entropy" in logs:
            logs["val_loss"] = logs.pop("val_cross_entropy")


@contextlib.contextmanager
def clear_errors(corrupt, workers: int = 1):
    """Around what reads a pipeline: TensorFlow's errors become clear ones, too many broken images `corrupt.error()`.

    With several workers it is also told that one of them was lost.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise _out_of_memory(error) from None
    except _jax_errors() as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise _out_of_memory(error) from None
        if workers > 1:
            raise _lost_worker(error) from None
        raise RunError(f"JAX stopped: {first_line(error)}") from error
    except tf.errors.OpError as error:
        if corrupt is not None and corrupt.exceeded:
            raise corrupt.error() from None
        if own := run_error(error):
            raise own from None
        lost = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError)
        if workers > 1 and isinstance(error, lost):
            raise _lost_worker(error) from None
        raise RunError(f"TensorFlow stopped: {first_line(error)}") from error


def _jax_errors() -> tuple[type[Exception], ...]:
    if keras.backend.backend() != "jax":
        return ()
    import jax

    return (jax.errors.JaxRuntimeError,)


def _out_of_memory(error):
    return RunError(f"Out of memory: {first_line(error)} Lower --batch_size or --image_size.")


def _lost_worker(error):
    return RunError(
        f"Another worker was lost: {first_line(error)} Look at its log, and start all workers again with --resume."
    )


def first_line(error: Exception) -> str:
    """The beginning of a library's error."""
    message = error.message if isinstance(error, tf.errors.OpError) else str(error)
    message = re.sub(r"\{\{.*?\}\}", "", message)  # TensorFlow names its graph's nodes first
    message = message.replace("Graph execution error:", "").strip()
    return " ".join((message or type(error).__name__).splitlines()[0].split())[:300]


def load_network(path: str | pathlib.Path, *, num_classes: int | None = None) -> keras.Model:
    """Loads a .keras file, without its training state and without running code from it.

    Raises:
        MisuseError: if it can't be read, or has another number of classes than `num_classes`.
    """
    if not pathlib.Path(path).is_file():
        raise MisuseError(
            f"Expected a .keras file, received {path}, which isn't there. A finished run has model.keras; "
            "`keras-bot train --resume` finishes one that was interrupted."
        )
    if not zipfile.is_zipfile(path):
        raise MisuseError(f"Can't load {path}: it is damaged, or no .keras file.")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever it stumbles over in a damaged file
        raise MisuseError(f"Can't load {path} as a .keras file: {first_line(error)}") from None
    outputs = model.outputs or ()
    if len(outputs) != 1 or len(outputs[0].shape) != 2:
        raise MisuseError(f"Expected {path} to hold a network with one output, (batch, classes).")
    classes = outputs[0].shape[-1]
    if num_classes is not None and classes != num_classes:
        raise MisuseError(f"Expected a network with {num_classes} classes, as the data set has; {path} has {classes}.")
    return model
