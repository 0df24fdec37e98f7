import pathlib

import pytest
from processes import run_python

import keras_bot

ENDED = """
import time
import tensorflow as tf
from keras_bot.data.python_ops import numpy_function

def slowly(number):
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        pass
    if number > 2:
        raise ValueError("a broken image")
    return number

def read():
    numbers = tf.data.Dataset.range(100)
    numbers = numbers.map(lambda number: numpy_function(slowly, [number], tf.int64), num_parallel_calls=4)
    held = [iter(numbers.prefetch(4))]
    held.append(held)  # a cycle
    for _ in held[0]:
        pass

"""


CAUGHT = "try:\n    read()\nexcept Exception as error:\n    raise SystemExit(1)"


@pytest.mark.thorough
@pytest.mark.parametrize("end", [CAUGHT, "read()"], ids=["caught", "not"])
def test_a_process_ends_while_a_pipeline_wants_python(end):
    """With tf.numpy_function itself both hang."""
    done = run_python(ENDED + end, check=False, timeout=90)
    assert done.returncode == 1 and ("a broken image" in done.stderr) is (end == "read()")


def test_all_python_in_graphs_goes_by_it():
    package = pathlib.Path(keras_bot.__file__).parent
    calls = ("tf.numpy_function(", "tf.py_function(", ".from_generator(")
    users = [path.name for path in package.rglob("*.py") if any(call in path.read_text() for call in calls)]
    assert users == ["python_ops.py"]
