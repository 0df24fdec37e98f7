"""A forward pass, a gradient and five steps of NAG on the backend of KERAS_BACKEND.

    agreement.py NETWORK DTYPE INPUTS OUTPUTS

DTYPE is float32 or float64. INPUTS is an .npz of images and labels, and of the weights w0, w1, … in the network's
order; what comes of it goes to OUTPUTS.
"""

import sys

import keras
import numpy as np
from keras.src.backend.common import dtypes

from keras_bot import models, tricks

STEPS = 5


def allow_float64():
    """Keras' type rules never give float64, so that batch norm falls back to float32 (Keras 3.15)."""
    rule = dtypes.result_type

    def wider(*kinds):
        return "float64" if any("float64" in str(kind) for kind in kinds) else rule(*kinds)

    dtypes.result_type = keras.src.backend.result_type = wider


def network(name, dtype, inputs):
    """The network with the weights of the file."""
    model = models.create_model(name, num_classes=10, width=0.25, dtype=dtype)
    model.set_weights([inputs[f"w{place}"] for place in range(len(model.weights))])
    return model


def trained(model, inputs, optimizer, steps):
    """All variables after so many steps on the batch."""
    loss = tricks.SmoothedCrossentropy(0.1, from_logits=True)
    # XLA adds in another order; PyTorch's compiler needs one for C++.
    model.compile(optimizer, loss, jit_compile=keras.backend.backend() == "jax")
    for _ in range(steps):
        model.train_on_batch(inputs["images"], inputs["labels"])
    return [keras.ops.convert_to_numpy(variable) for variable in model.variables]


def main():
    """Writes logits, the ends of stages, gradients and the weights after the steps."""
    name, dtype, source, target = sys.argv[1:]
    if dtype == "float64":
        allow_float64()
    inputs = np.load(source)
    model = network(name, dtype, inputs)
    results = {"logits": model.predict_on_batch(inputs["images"])}
    ends = models.features(model).predict_on_batch(inputs["images"])
    results |= {level: np.asarray(end) for level, end in ends.items()}
    moved = trained(network(name, dtype, inputs), inputs, keras.optimizers.SGD(1.0), 1)
    trainable = [variable.trainable for variable in model.variables]
    for place, (after, counts) in enumerate(zip(moved, trainable, strict=True)):
        results[f"gradient{place}" if counts else f"moving{place}"] = inputs[f"w{place}"] - after
    schedule = tricks.Warmup(tricks.CosineDecay(0.001, 4), 2)
    optimizer = tricks.NAG(schedule, momentum=0.9, weight_decay=1e-3)
    stepped = trained(network(name, dtype, inputs), inputs, optimizer, STEPS)
    results |= {f"step{place}": value for place, value in enumerate(stepped)}
    np.savez(target, **results)


if __name__ == "__main__":
    main()
