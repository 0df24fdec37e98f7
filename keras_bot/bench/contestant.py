"""A network timed step by step in its own process, on its own backend.

    python -c "from keras_bot.bench.contestant import main; main()" JSON

It builds the network of the `Contestant` in JSON and prints the network's size as one line of JSON. For each line on
standard input, it runs a step and prints the step's seconds. At the end of the input, it prints its peak memory. This
allows networks of several frameworks to be timed in turn.
"""

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable

from keras_bot.bench.memory import peak_mib

NUM_CLASSES = 1000
PEERS = {  # peer name -> network
    "keras_applications": "ResNet50",
    "keras_hub": "ResNet-50-vd",
    "timm": "resnet50d",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepSettings:
    """The step to time, the same for all networks.

    Attributes:
        mode: "train" or "forward" (inference).
        batch_size: random images per step, which stay in memory.
        image_size: their height and width.
        dtype: dtype policy: "float32", "mixed_bfloat16" or "mixed_float16".
        jit_compile: compile with XLA or torch.compile; always on with JAX.
    """

    mode: str = "train"
    batch_size: int = 16
    image_size: int = 224
    dtype: str = "float32"
    jit_compile: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contestant(StepSettings):
    """The network to time and its step.

    Attributes:
        name: a network from `models.names()`, or one of `PEERS`.
        backend: "tensorflow", "jax" or "torch"; always "torch" for timm.
        folded: fold batch norm into the convolutions of a keras_bot network; "forward" only.
    """

    name: str
    backend: str
    folded: bool = False


def main() -> None:
    """Runs the timing process."""
    contestant = Contestant(**json.loads(sys.argv[1]))
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # sends library output to stderr
    build = _timm_step if contestant.name == "timm" else _keras_step
    step, size = build(contestant)
    print(json.dumps(size), file=results, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, file=results, flush=True)
    print(_peak_mib(contestant.backend), file=results, flush=True)


def _keras_step(contestant: Contestant) -> tuple[Callable, dict]:
    """Returns a step function that blocks until its results are on the host, and the network's size."""
    import keras
    import numpy as np

    from keras_bot import models

    network = _keras_network(contestant)
    network.compile(
        optimizer=keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=contestant.jit_compile or contestant.backend == "jax",
    )
    images, labels = _batch(contestant)
    images, labels = (keras.ops.convert_to_tensor(part) for part in (images, labels))
    size = {"parameters": models.count_parameters(network)}
    with contextlib.suppress(ValueError):  # raised for nested models
        size["flops"] = models.count_flops(network, contestant.image_size)
    if contestant.mode == "train":
        return lambda: float(np.asarray(network.train_on_batch(images, labels))), size
    return lambda: network.predict_on_batch(images), size


def _keras_network(contestant):
    import keras

    from keras_bot import models

    shape = (contestant.image_size, contestant.image_size, 3)
    if contestant.name in PEERS:
        keras.config.set_dtype_policy(contestant.dtype)
    if contestant.name == "keras_applications":
        return keras.applications.ResNet50(
            weights=None, input_shape=shape, classes=NUM_CLASSES, classifier_activation=None
        )
    if contestant.name == "keras_hub":
        import keras_hub

        backbone = keras_hub.models.ResNetBackbone(
            input_conv_filters=[32, 32, 64],
            input_conv_kernel_sizes=[3, 3, 3],
            stackwise_num_filters=[64, 128, 256, 512],
            stackwise_num_blocks=[3, 4, 6, 3],
            stackwise_num_strides=[1, 2, 2, 2],
            block_type="bottleneck_block_vd",
            image_shape=shape,
        )
        pooled = keras.layers.GlobalAveragePooling2D()(backbone.output)
        return keras.Model(backbone.input, keras.layers.Dense(NUM_CLASSES, dtype="float32")(pooled))
    network = models.create_model(contestant.name, num_classes=NUM_CLASSES, input_shape=shape, dtype=contestant.dtype)
    if contestant.folded:
        from keras_bot.surgery import fold_batch_norm

        return fold_batch_norm(network)
    if contestant.backend == "tensorflow":
        from keras_bot.training.fused_batch_norm import fuse_batch_norm

        fuse_batch_norm(network)  # as in `train`
    return network


def _timm_step(contestant: Contestant) -> tuple[Callable, dict]:
    """Returns a step function of timm's network in plain PyTorch, channels last, and its number of parameters."""
    import timm
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = timm.create_model(PEERS["timm"], num_classes=NUM_CLASSES)
    network = network.to(device, memory_format=torch.channels_last)
    images, labels = (torch.from_numpy(part).to(device) for part in _batch(contestant))
    images = images.permute(0, 3, 1, 2)  # a view that stays channels last in memory
    half = {"mixed_bfloat16": torch.bfloat16, "mixed_float16": torch.float16}.get(contestant.dtype)
    autocast = torch.autocast(device, half, enabled=half is not None)
    run = torch.compile(network) if contestant.jit_compile else network
    size = {"parameters": sum(weight.numel() for weight in network.parameters())}
    if contestant.mode == "forward":
        network.eval()

        def forward():
            with torch.inference_mode(), autocast:
                return run(images).float().cpu().numpy()

        return forward, size
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, nesterov=True)
    scaler = torch.amp.GradScaler(device, enabled=half is torch.float16)

    def train():
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            loss = torch.nn.functional.cross_entropy(run(images).float(), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.item()

    return train, size


def _batch(contestant):
    import numpy as np

    rng = np.random.default_rng(0)
    shape = (contestant.batch_size, contestant.image_size, contestant.image_size, 3)
    return rng.standard_normal(shape, dtype="float32"), rng.integers(NUM_CLASSES, size=contestant.batch_size)


def _peak_mib(backend) -> float:
    """Returns the peak memory in MiB, of the GPU if there is one, else of the process."""
    if backend == "torch":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 2**20
    if backend == "jax":
        import jax

        if jax.default_backend() != "cpu":
            return jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20
    if backend == "tensorflow":
        import tensorflow as tf

        if tf.config.list_physical_devices("GPU"):
            return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20
    return peak_mib()
