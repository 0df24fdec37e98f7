"""Training on JAX, in processes with the JAX backend and up to 4 CPU devices."""

import numpy as np
import pytest
from processes import KERAS_BOT, run_process, run_python

pytest.importorskip("jax", reason="JAX isn't installed")

SETUP = """
import sys
import jax, keras, numpy as np, tensorflow as tf
from keras_bot import tricks
from keras_bot.recipe import Recipe
from keras_bot.training.distributed.accumulate_jax import accumulate_in_jax_step
from keras_bot.training.distributed.on_jax import JaxStrategy

draw = np.random.default_rng(0)
IMAGES = draw.standard_normal((16, 6, 6, 3), dtype="float32")
LABELS = np.eye(4, dtype="float32")[draw.integers(0, 4, 16)]
WEIGHTS = draw.uniform(0.5, 2, 16).astype("float32")

def distribution(devices):
    if devices == 1:
        import contextlib
        return contextlib.nullcontext()
    names = keras.distribution.list_devices()[:devices]
    return keras.distribution.DataParallel(devices=names, auto_shard_dataset=False).scope()

def compiled(policy="float32", steps=1, optimizer=None):
    keras.utils.set_random_seed(1)
    image = keras.Input((6, 6, 3))
    with tricks.mixed_precision(policy):
        x = keras.layers.Conv2D(5, 3, activation="relu", kernel_regularizer=keras.regularizers.L2(0.05))(image)
        x = keras.layers.GlobalAveragePooling2D()(x)
        model = keras.Model(image, keras.layers.Dense(4, dtype="float32")(x))
    model.compile(
        optimizer=optimizer or tricks.NAG(0.1, weight_decay=1e-3),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        weighted_metrics=[keras.metrics.CategoricalCrossentropy(from_logits=True, name="entropy")],
    )
    accumulate_in_jax_step(model, steps)
    return model
"""


def run(program, **environment):
    flags = "--xla_force_host_platform_device_count=4"
    own = {"KERAS_BACKEND": "jax", "XLA_FLAGS": flags, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return run_python(program, env={**own, **environment}).stdout


@pytest.mark.thorough
def test_accumulation_equals_the_whole_batch():
    """Without batch norm, on one and two devices, with a penalty and sample weights."""
    run(
        SETUP
        + """
def after_steps(devices, steps):
    with distribution(devices):
        model = compiled(steps=steps)
        data = tf.data.Dataset.from_tensors((IMAGES, LABELS, WEIGHTS)).repeat(5)
        logs = model.fit(data, verbose=0).history
        return [np.asarray(w) for w in model.get_weights()], logs

weights, logs = after_steps(1, 1)
for devices, steps in ((1, 4), (2, 1), (2, 4)):
    accumulated, accumulated_logs = after_steps(devices, steps)
    for a, b in zip(accumulated, weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert accumulated_logs.keys() == logs.keys() and "entropy" in logs
    for name in logs:
        np.testing.assert_allclose(accumulated_logs[name], logs[name], rtol=1e-5)
from keras_bot.errors import MisuseError
try:
    compiled(steps=3).train_on_batch(IMAGES, LABELS)
except MisuseError as error:
    assert "16 images is not divisible by accumulation_steps=3" in str(error)
else:
    raise AssertionError("16 rows were divided by 3")
"""
    )


@pytest.mark.thorough
def test_a_non_finite_gradient_skips_the_step_on_all_devices():
    """inf or NaN on one of 1, 2 or 4 devices: the loss scale is halved once, and nothing else changes."""
    run(
        SETUP
        + """
def copies(variable):
    # the variable's value on each device
    return [np.asarray(shard.data) for shard in variable.value.addressable_shards]

def state(model):
    scaling = model.optimizer
    counts = [scaling.dynamic_scale, scaling.step_counter, scaling.iterations]
    updated = [*model.trainable_variables, *scaling.inner_optimizer._velocities]
    for variable in [*counts, *updated]:
        assert all(np.array_equal(copy, variable.numpy()) for copy in copies(variable)), variable.path
    return [float(count.numpy()) for count in counts], [variable.numpy() for variable in updated]

def check(devices, device, bad):
    with distribution(devices):
        optimizer = tricks.LossScaling(tricks.NAG(0.1, weight_decay=1e-3), initial_scale=1024.0)
        model = compiled("mixed_float16", optimizer=optimizer)
        images = IMAGES.copy()
        images[device * 16 // devices, 2, 2, 1] = bad
        states = []
        for batch in (IMAGES, images, IMAGES):
            model.train_on_batch(batch, LABELS)
            states.append(state(model))
            assert len(copies(optimizer.dynamic_scale)) == devices
    (before, first), (skipped, second), (after, third) = states
    assert (before, skipped, after) == ([1024, 1, 1], [512, 0, 1], [512, 1, 2]), (before, skipped, after)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(second, third, strict=True))

for devices, device, bad in ((1, 0, np.inf), (2, 1, np.nan), (4, 0, np.nan), (4, 2, np.inf), (4, 3, np.nan)):
    try:
        check(devices, device, bad)
    except AssertionError as error:
        raise AssertionError(f"{bad} on device {device} of {devices}: {error}") from error
"""
    )


RESUMED = """
import os, pathlib, signal, sys
import numpy as np
from keras_bot.errors import Terminated
from keras_bot.recipe import Recipe
from keras_bot.training.checkpoints.saver import Saver
from keras_bot.trainer import train

RECIPE = Recipe(
    dataset=FILE, num_classes=4, batch_size=8, image_size=8, transform="cifar", model="cifar_resnet8_d", width=0.25,
    epochs=2, mixup_alpha=0.2, precision="mixed_float16", learning_rate=0.01, accumulation_steps=2,
)
folder = pathlib.Path(FOLDER)
train(RECIPE, folder / "whole", progress_bar=False)
for moment in MOMENTS:
    original, sent = getattr(Saver, moment), []
    def terminate(self, batch, logs=None):
        if not sent:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))
        return original(self, batch, logs)
    setattr(Saver, moment, terminate)
    try:
        train(RECIPE, folder / moment, progress_bar=False)
        raise AssertionError("SIGTERM did not stop the run")
    except Terminated as error:
        print(error)
    setattr(Saver, moment, original)
    train(RECIPE, folder / moment, resume=True, progress_bar=False)
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("moment", "step"),
    [("on_train_batch_end", 1), ("on_test_batch_end", 3)],
)
def test_a_run_stopped_by_sigterm_resumes_exactly(moment, step, tmp_path, npz_file):
    """Within the first epoch or its evaluation, in half precision, with gradient accumulation."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    output = run(f"FILE, FOLDER, MOMENTS = {str(npz_file())!r}, {str(tmp_path)!r}, {[moment]!r}\n{RESUMED}", **cache)
    assert f"state after step {step} is saved" in output

    def final_state(name):
        (file,) = sorted((tmp_path / name / "checkpoints").glob("step-*6.npz"))
        lines = (tmp_path / name / "history.csv").read_text().splitlines()
        with np.load(file) as stored:
            return {k: stored[k] for k in stored.files if k != "state.json"}, [line.split(",")[:7] for line in lines]

    whole, history = final_state("whole")
    assert len(whole) > 70 and len(history) == 3
    resumed, lines = final_state(moment)
    assert lines == history
    assert resumed.keys() == whole.keys() and all(np.array_equal(resumed[k], whole[k]) for k in whole)


@pytest.mark.thorough
def test_unsupported_options_are_reported(tmp_path):
    flags = ["--dataset=synthetic", "--image_size=8", "--transform=plain", "--augment_on=device"]
    command = [*KERAS_BOT, "train", *flags, f"--run_dir={tmp_path / 'run'}"]
    done = run_process(command, check=False, env={"KERAS_BACKEND": "jax"})
    assert done.returncode == 2 and "--augment_on=device is not supported on the JAX backend" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()
