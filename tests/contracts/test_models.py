"""The contract of model classes with a config of their own."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from contracts.checks import (
    assert_close,
    assert_equal,
    check_compiled,
    check_config,
    check_defaults,
    check_refusal,
    dtypes,
    each,
    each_refusal,
    round_trip,
    save_and_load,
)
from contracts.models import ROWS, WITH_CONFIG, images
from keras_bot.tricks import DistillationModel, mixed_precision


@functools.cache
def built(row, policy="float32"):
    """The row's model, with the same random weights under every policy."""
    with mixed_precision(policy):
        model = row.build()
    draw = np.random.default_rng(0)
    for weight in model.weights:
        if "float" in weight.dtype:
            values = draw.normal(0, 0.3, weight.shape)
            weight.assign(abs(values) + 0.1 if weight.name == "moving_variance" else values)
    return model


@each(WITH_CONFIG)
def test_the_config_contains_every_argument(row):
    check_defaults(row)
    check_config(row, copied=("teacher",))


@each(ROWS)
def test_a_saved_model_is_the_same(row, tmp_path):
    model = row.saved(built(row))
    loaded = save_and_load(model, tmp_path, compile=False)  # finds the class by its registered name alone
    assert_equal(loaded(images(2)), model(images(2)))


@each([row for row in ROWS if row.make is DistillationModel])
@pytest.mark.parametrize("changes", [{}, {"teacher": None}], ids=["whole", "without a teacher"])
def test_a_copy_has_the_parts_that_are_not_saved(row, changes):
    model = row.build(**changes)
    copy = round_trip(model)
    assert (copy.teacher is None) == bool(changes)
    copy.set_weights(model.get_weights())
    assert_equal(row.loss(copy), row.loss(model)) if copy.teacher else None


@each(ROWS)
def test_half_precision(row):
    """In mixed_float16, the less forgiving one; `test_builders.py` has the parts of networks under every policy."""
    model = built(row, "mixed_float16")
    assert {weight.dtype for weight in model.weights if "float" in weight.dtype} == {"float32"}
    outputs = model(images(2))
    named = outputs if isinstance(outputs, dict) else {"logits": outputs}
    for name, value in named.items():
        assert dtypes(value) == ["float32" if row.heads is None or name in row.heads else "float16"], name
    assert_close(outputs, built(row)(images(2)), tolerance=0.01)
    if hasattr(model, "predict_boxes"):
        assert dtypes(model.predict_boxes(images(1))["scores"]) == ["float32"]
    if row.loss:
        with tf.GradientTape() as tape:
            loss = row.loss(model)
        gradients = tape.gradient(loss, model.trainable_variables)
        assert loss.dtype == "float32" and np.isfinite(loss)
        assert all(gradient is not None and np.isfinite(gradient).all() for gradient in gradients)


@each(ROWS)
def test_graphs_give_the_same_outputs(row):
    """Without XLA: calls only run networks of Keras layers, whose parts `test_builders.py` compiles."""
    call = functools.partial(built(row), training=False)
    check_compiled(lambda: lambda x: call(x), lambda size: (images(size),), tolerance=1e-4, xla=False)


@each_refusal(ROWS)
def test_bad_arguments_are_refused(row, refusal):
    check_refusal(row, refusal)
