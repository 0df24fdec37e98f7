"""The backends that are installed give the same forward pass, gradients and steps."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_bot import models

SCRIPT = pathlib.Path(__file__).with_name("agreement.py")
BACKENDS = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]


def inputs_of(name):
    """A batch, and weights whose batch norms do something.

    Blocks add little, as those of trained networks do: a fresh ResNet-50's gradient is 600 long, and multiplies
    rounding by 1e5.
    """
    draw = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    model = models.create_model(name, num_classes=10, width=0.25)
    weights = []
    for weight in model.weights:
        value = keras.ops.convert_to_numpy(weight)
        if value.ndim == 1:
            value = value + draw.uniform(-0.2, 0.2, value.shape)
        if weight.path.endswith(("block1_2_bn/gamma", "block2_2_bn/gamma", "_3_bn/gamma")):
            value = value * 0.1
        weights.append(value.astype("float32"))
    labels = np.eye(10, dtype="float32")[draw.integers(10, size=8)]
    images = draw.standard_normal((8, 129, 97, 3), dtype="float32")
    return {"images": images, "labels": labels, **{f"w{place}": weight for place, weight in enumerate(weights)}}


def worst(ours, theirs, kind):
    """The largest difference among the arrays of a kind, each over its largest value, or over 1 if that is less."""
    names = [name for name in theirs.files if name.rstrip("0123456789") == kind or (kind == "C" and name[0] == "C")]
    assert names
    return max(np.abs(ours[name] - theirs[name]).max() / max(1.0, np.abs(theirs[name]).max()) for name in names)


def run(name, dtype, folder):
    """What each backend gives, by its name."""
    results = {}
    for backend in BACKENDS:
        target = folder / f"{backend}_{dtype}.npz"
        done = subprocess.run(
            [sys.executable, str(SCRIPT), name, dtype, str(folder / "inputs.npz"), str(target)],
            capture_output=True,
            text=True,
            env={**os.environ, "KERAS_BACKEND": backend, "JAX_ENABLE_X64": str(int(dtype == "float64"))},
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        results[backend] = np.load(target)
    return results


@pytest.mark.soak
@pytest.mark.skipif(len(BACKENDS) < 2, reason="only one backend is installed")
@pytest.mark.parametrize("name", ["resnet18_d", "resnet50_d", "resnet50_a"])
def test_backends_agree(name, tmp_path):
    """To 1e-4; a gradient of float32 as far as float32 reaches on the first backend itself, if that is less far.

    A sum that is rounded otherwise puts some ReLU of millions on the other side of 0, and what the gradient is then
    no longer depends on rounding alone: in float64 none of them flips.
    """
    np.savez(tmp_path / "inputs.npz", **inputs_of(name))
    single, double = run(name, "float32", tmp_path), run(name, "float64", tmp_path)
    reference, *others = BACKENDS
    reach = worst(single[reference], double[reference], "gradient")
    print(f"{name}, {reference}, float32 and float64: gradient {reach:.1e}")
    for backend in others:
        for results, bars in (
            (double, {"gradient": 1e-5}),
            (single, {"logits": 1e-4, "C": 1e-4, "moving": 1e-4, "step": 1e-4, "gradient": max(1e-4, 4 * reach)}),
        ):
            found = {kind: worst(results[backend], results[reference], kind) for kind in bars}
            figures = ", ".join(f"{kind} {value:.1e}" for kind, value in found.items())
            print(f"{name}, {backend} and {reference}, {'float64' if results is double else 'float32'}: {figures}")
            assert all(found[kind] < bar for kind, bar in bars.items()), (backend, found, bars)
