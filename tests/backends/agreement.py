"""A forward pass, a gradient and five steps of NAG on the backend of KERAS_BACKEND.

    agreement.py NETWORK INPUTS OUTPUTS

INPUTS is an .npz of images and labels, and of the weights w0, w1, … in the network's order; what comes of it goes to
OUTPUTS.
"""

import sys

import keras
import numpy as np

from keras_bot import models, tricks

STEPS = 5


def network(name, inputs):
    """The network with the weights of the file."""
    model = models.create(name, num_classes=10, width=0.25)
    model.set_weights([inputs[f"w{place}"] for place in range(len(model.weights))])
    return model


def trained(name, inputs, optimizer, steps):
    """All variables after so many steps on the batch."""
    model = network(name, inputs)
    loss = tricks.SmoothedCrossentropy(0.1, from_logits=True)
    # XLA adds in another order; PyTorch's compiler needs one for C++.
    model.compile(optimizer, loss, jit_compile=keras.backend.backend() == "jax")
    for _ in range(steps):
        model.train_on_batch(inputs["images"], inputs["labels"])
    return [keras.ops.convert_to_numpy(variable) for variable in model.variables]


def main():
    """Writes logits, the ends of stages, gradients and the weights after the steps."""
    name, source, target = sys.argv[1:]
    inputs = np.load(source)
    model = network(name, inputs)
    results = {"logits": model.predict_on_batch(inputs["images"])}
    ends = models.features(model).predict_on_batch(inputs["images"])
    results |= {level: np.asarray(end) for level, end in ends.items()}
    moved = trained(name, inputs, keras.optimizers.SGD(1.0), 1)
    trainable = [variable.trainable for variable in model.variables]
    for place, (after, counts) in enumerate(zip(moved, trainable, strict=True)):
        results[f"gradient{place}" if counts else f"moving{place}"] = inputs[f"w{place}"] - after
    schedule = tricks.Warmup(tricks.CosineDecay(0.001, 4), 2)
    optimizer = tricks.NAG(schedule, momentum=0.9, weight_decay=1e-3)
    results |= {f"step{place}": value for place, value in enumerate(trained(name, inputs, optimizer, STEPS))}
    np.savez(target, **results)


if __name__ == "__main__":
    main()
