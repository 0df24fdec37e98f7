"""Checks and helpers that the contracts of several kinds of objects share."""

import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping

import keras
import numpy as np
import pytest
import tensorflow as tf

EPSILON = {"float64": 1e-12, "float32": 1e-6, "bfloat16": 2.0**-8, "float16": 2.0**-11}  # rounding of one number
POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Arguments that a class must refuse.

    Attributes:
        arguments: constructor arguments that replace those of the row.
        fragments: texts in the message: the argument's name and the value received, in this order.
        error: type of the exception.
        call: arguments of a call of the constructed object; None if the constructor itself must raise.
        built: returns further constructor arguments that take long to build, such as models.
    """

    arguments: Mapping[str, object]
    fragments: tuple[str, ...]
    error: type[Exception] = ValueError
    call: tuple | None = None
    built: Callable[[], dict] = dict

    def __str__(self) -> str:
        return " … ".join(self.fragments)


def refuse(*fragments: str, error=ValueError, call: tuple | None = None, built=dict, **arguments) -> Refusal:
    """Returns the refusal of arguments. The message of a single one must contain its name and the value received."""
    if not fragments:
        ((name, value),) = arguments.items()
        fragments = (name, f"received {value!r}")
    return Refusal(arguments, fragments, error, call, built)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One object in the table of its kind; each kind adds its own attributes.

    Attributes:
        make: the class.
        arguments: returns constructor arguments; none is a default.
        defaults: default of every argument that has one, without those of the Keras base class.
        refused: arguments that the class must refuse.
        name: name of the test, by default that of the class.
        signature: function or class with the class's parameters, if its own constructor takes any arguments.
    """

    make: type
    arguments: Callable[[], dict]
    defaults: Mapping[str, object] = dataclasses.field(default_factory=dict)
    refused: tuple[Refusal, ...] = ()
    name: str = ""
    signature: Callable | None = None

    @property
    def parameters(self) -> list[inspect.Parameter]:
        return list(inspect.signature(self.signature or self.make).parameters.values())

    def __str__(self) -> str:
        return self.name or self.make.__name__

    def build(self, **changes):
        """Constructs the object with the row's arguments."""
        return self.make(**{**self.arguments(), **changes})


def each(rows: Iterable[Row]):
    """Parametrizes a test by `row`."""
    return pytest.mark.parametrize("row", rows, ids=str)


def each_refusal(rows: Iterable[Row]):
    """Parametrizes a test by `row` and `refusal`."""
    cases = [(row, refusal) for row in rows for refusal in row.refused]
    return pytest.mark.parametrize(("row", "refusal"), cases, ids=str)


def check_refusal(row: Row, refusal: Refusal) -> None:
    """The constructor or the call raises, and the message names the argument and the value."""
    arguments = {**refusal.arguments, **refusal.built()}
    instance = None if refusal.call is None else row.build(**arguments)
    with pytest.raises(refusal.error, match=".*".join(map(re.escape, refusal.fragments))):
        row.build(**arguments) if refusal.call is None else instance(*refusal.call)


def check_defaults(row: Row, inherited: tuple[str, ...] = ()) -> None:
    """The defaults in the signature are the row's. `inherited` are arguments of the Keras base class."""
    found = {p.name: p.default for p in row.parameters if p.default is not p.empty and p.name not in inherited}
    assert found == dict(row.defaults)


def check_config(row: Row, inherited: tuple[str, ...] = (), copied: tuple[str, ...] = ()) -> None:
    """The row's arguments all differ from the defaults, and the config contains every argument with its value.

    Of the `inherited` ones only those of the row are checked. Of the `copied` ones, models that the object modifies,
    only the name is compared.
    """
    arguments = row.arguments()
    names = {p.name for p in row.parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)} - set(inherited)
    assert names <= set(arguments), f"{row} needs a value for every argument"
    for name, default in row.defaults.items():
        assert arguments[name] != default, f"{name} of {row} must not be the default"
    config = row.make(**arguments).get_config()
    for name, value in arguments.items():
        if name in copied:
            assert config[name]["config"]["name"] == value.name
        else:
            assert plain(config[name]) == plain(value), f"{name} in the config of {row}"


def plain(value):
    """Returns a value or a config as JSON gives it back."""
    return json.loads(json.dumps(keras.saving.serialize_keras_object(value)))


def round_trip(instance):
    """Returns the copy that JSON text gives. The class must be found by its registered name alone."""
    data = plain(instance)
    assert data["registered_name"] == f"keras_bot>{type(instance).__name__}"
    copy = keras.saving.deserialize_keras_object({**data, "module": None, "class_name": ""})
    assert type(copy) is type(instance)
    assert plain(copy.get_config()) == plain(instance.get_config())
    return copy


def save_and_load(model: keras.Model, folder, **options) -> keras.Model:
    """Returns the model from a .keras file, after comparing type, config and weights bit by bit."""
    model.save(folder / "model.keras")
    loaded = keras.saving.load_model(folder / "model.keras", **options)
    assert type(loaded) is type(model) and plain(loaded.get_config()) == plain(model.get_config())
    assert_equal(loaded.get_weights(), model.get_weights())
    return loaded


def arrays(values) -> list[tuple[str, np.ndarray]]:
    """Returns the arrays in a structure of tensors with their paths; half precision becomes float32."""

    def as_array(value):
        array = np.asarray(tf.convert_to_tensor(value))
        return array.astype("float32") if array.dtype.itemsize == 2 else array

    flat = keras.tree.flatten_with_path(values)
    return [("/".join(map(str, path)), as_array(value)) for path, value in flat if value is not None]


def assert_equal(found, expected) -> None:
    """Two structures of tensors are equal bit by bit."""
    for (path, one), (other_path, other) in zip(arrays(found), arrays(expected), strict=True):
        assert path == other_path
        np.testing.assert_array_equal(one, other, err_msg=path)


def assert_close(found, expected, tolerance: float) -> None:
    """Two structures of tensors are finite and differ by at most `tolerance` times the largest value of an array."""
    for (path, one), (other_path, other) in zip(arrays(found), arrays(expected), strict=True):
        assert path == other_path and np.isfinite(one).all(), path
        scale = max(np.abs(other).max(initial=0), 1e-3)
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale, err_msg=path)


def dtypes(values) -> list[str]:
    """Returns the dtypes of a structure of tensors."""
    return [keras.backend.standardize_dtype(value.dtype) for value in tf.nest.flatten(values)]


def batches_of_any_size(*values) -> list[tf.TensorSpec]:
    """Returns the signature of a function of these tensors whose first axis may have any size."""
    tensors = map(tf.convert_to_tensor, values)
    return [tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype) for tensor in tensors]


def check_compiled(build: Callable[[], Callable], batch: Callable[[int], tuple], tolerance: float, xla=True) -> None:
    """A function of tensors gives the same eagerly, traced for batches of any size, and compiled by XLA.

    Args:
        build: returns the function; called for each way, since the function may have a state.
        batch: batch size -> arguments.
        tolerance: largest difference relative to the largest value.
        xla: whether XLA can compile the function and gives the same values.
    """
    eager, options = build(), {"input_signature": batches_of_any_size(*batch(2)), "autograph": False}
    expected = {size: eager(*map(tf.convert_to_tensor, batch(size))) for size in (1, 3)}
    for jit, sizes in ((False, (1, 3)), (True, (3,) if xla else ())):  # XLA compiles for each size
        compiled = tf.function(build(), jit_compile=jit, **options)
        for size in sizes:
            assert_close(compiled(*batch(size)), expected[size], tolerance)
