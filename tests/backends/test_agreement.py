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
    model = models.create(name, num_classes=10, width=0.25)
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


@pytest.mark.slow
@pytest.mark.skipif(len(BACKENDS) < 2, reason="only one backend is installed")
@pytest.mark.parametrize("name", ["resnet18_d", "resnet50_d", "resnet50_a"])
def test_backends_agree(name, tmp_path):
    np.savez(tmp_path / "inputs.npz", **inputs_of(name))
    results = {}
    for backend in BACKENDS:
        command = [sys.executable, str(SCRIPT), name, str(tmp_path / "inputs.npz"), str(tmp_path / f"{backend}.npz")]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "KERAS_BACKEND": backend}, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        results[backend] = np.load(tmp_path / f"{backend}.npz")
    reference, *others = BACKENDS
    for backend in others:
        found = {
            kind: worst(results[backend], results[reference], kind)
            for kind in ("logits", "C", "gradient", "moving", "step")
        }
        print(f"{name}, {backend} and {reference}: {', '.join(f'{kind} {value:.1e}' for kind, value in found.items())}")
        assert max(found.values()) < 1e-4, (backend, found)
