"""Python within TensorFlow's graphs, so that a process still ends when a pipeline is left in the middle.

A thread of a pipeline that waits for its turn in Python while the interpreter ends is ended itself, and what it
was to do is never done. TensorFlow waits for that when it takes the pipeline down, so the process hangs after its last
line: one training in six that met too many broken images (CPython 3.11, TensorFlow 2.21). So pipelines that nobody
holds any more are taken down before the interpreter ends, while Python still has turns to give.
"""

import atexit
import functools
import gc
import sys
from collections.abc import Callable, Sequence

import tensorflow as tf


def in_python(function: Callable, inputs: Sequence[tf.Tensor], dtypes, stateful: bool = True):
    """`tf.numpy_function`, in a process that ends. All of keras_bot's Python in graphs goes by it."""
    _end_in_order()
    return tf.numpy_function(function, inputs, dtypes, stateful=stateful)


@functools.cache
def _end_in_order():
    atexit.register(_take_down)


def _take_down():
    """Collects iterators that only cycles and the last error's frames hold; TensorFlow waits for their calls here."""
    for name in ("last_exc", "last_value", "last_traceback"):
        if hasattr(sys, name):
            setattr(sys, name, None)
    gc.collect()
