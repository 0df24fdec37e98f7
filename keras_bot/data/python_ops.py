"""Python functions in TensorFlow graphs that cannot hang interpreter shutdown if a pipeline is abandoned midway.

If the interpreter shuts down while a pipeline thread waits for the GIL, the thread is terminated and its Python call
never completes. TensorFlow waits for that call when it destroys the pipeline, so the process hangs at exit: this
happened in one of six training runs that met too many corrupt images (CPython 3.11, TensorFlow 2.21). Unreferenced
pipelines are therefore destroyed at exit, while Python code can still run.
"""

import atexit
import functools
import gc
import sys
from collections.abc import Callable, Sequence

import tensorflow as tf


def numpy_function(
    function: Callable, inputs: Sequence[tf.Tensor], dtypes: tf.DType | Sequence[tf.DType], stateful: bool = True
) -> tf.Tensor | list[tf.Tensor]:
    """`tf.numpy_function` that cannot hang interpreter shutdown. Use it for all Python code in graphs."""
    _register_cleanup()
    return tf.numpy_function(function, inputs, dtypes, stateful=stateful)


@functools.cache
def _register_cleanup():
    atexit.register(_collect_pipelines)


def _collect_pipelines():
    """Collects iterators kept alive only by cycles or the last traceback; TensorFlow waits for their calls here."""
    for name in ("last_exc", "last_value", "last_traceback"):
        if hasattr(sys, name):
            setattr(sys, name, None)
    gc.collect()
