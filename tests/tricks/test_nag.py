import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_bot.tricks import NAG, LossScaling

MU, LAMBDA = 0.9, 1e-2


class PyTorchSGD:
    """torch.optim.SGD(nesterov=True, weight_decay=…) in NumPy, after its documentation."""

    def __init__(self, momentum, weight_decay):
        self.momentum, self.weight_decay = momentum, weight_decay
        self.buffer = None

    def step(self, w, grad, rate):
        d_p = grad + self.weight_decay * w
        self.buffer = d_p.copy() if self.buffer is None else self.momentum * self.buffer + d_p
        return w - rate * (d_p + self.momentum * self.buffer)


def test_follows_pytorch_over_200_steps_of_a_changing_rate():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(6, 4))
    scale = rng.uniform(0.1, 1.0, size=(6, 4))
    rates = [float(np.float32(0.2 * (1 + np.cos(step / 17)) + 0.01)) for step in range(200)]
    variable = keras.Variable(start, dtype="float64", name="kernel")
    current = {}
    optimizer = NAG(lambda: current["rate"], momentum=MU, weight_decay=LAMBDA)
    optimizer.build([variable])
    reference, expected = PyTorchSGD(MU, LAMBDA), start.copy()
    for step, rate in enumerate(rates):
        current["rate"] = rate
        noise = rng.normal(size=(6, 4)) * 0.1
        optimizer.apply([keras.ops.convert_to_tensor(scale * variable.numpy() + noise)])
        expected = reference.step(expected, scale * expected + noise, rate)
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6, err_msg=f"step {step}")


def test_differs_from_the_nesterov_of_keras_when_the_rate_changes():
    ours, theirs = (keras.Variable([1.0, 2.0], name="kernel") for _ in range(2))
    nag = NAG(0.1, momentum=MU)
    sgd = keras.optimizers.SGD(0.1, momentum=MU, nesterov=True)
    for rate in (0.1, 0.1, 0.01):
        for optimizer, variable in ((nag, ours), (sgd, theirs)):
            optimizer.build([variable])
            optimizer.learning_rate = rate
            optimizer.apply([keras.ops.ones(2)])
        if rate == 0.1:
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)
    assert np.abs(ours.numpy() - theirs.numpy()).min() > 1e-3


def build_net():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 3, name="bias_branch"),
            layers.BatchNormalization(name="bn"),
            layers.SeparableConv2D(3, 2, name="separable"),
            layers.Flatten(),
            layers.Dense(2, name="kernel"),
        ],
        name="net",
    )


def decayed_paths(**options):
    """The paths of the variables that move when all gradients are 0: only decay can move them."""
    net = build_net()
    for variable in net.trainable_variables:
        variable.assign(np.ones(variable.shape))
    optimizer = NAG(1.0, weight_decay=0.1, **options)
    optimizer.build(net.trainable_variables)
    optimizer.apply([keras.ops.zeros(v.shape) for v in net.trainable_variables])
    return {v.path for v in net.trainable_variables if np.any(v.numpy() != 1)}


def test_kernels_alone_are_decayed_by_default():
    assert decayed_paths() == decayed_paths(decayed_variables="kernels")
    assert decayed_paths() == {
        "net/bias_branch/kernel",
        "net/separable/depthwise_kernel",
        "net/separable/pointwise_kernel",
        "net/kernel/kernel",
    }


def test_all_variables_or_those_of_given_paths_can_be_decayed():
    assert decayed_paths(decayed_variables="all") == {v.path for v in build_net().trainable_variables}
    assert decayed_paths(decayed_variables=["net/kernel/bias", "bn/gamma"]) == {"net/kernel/bias", "net/bn/gamma"}


@pytest.mark.parametrize("path", ["no_such_layer/kernel", "kernel", "th/kernel"])
def test_a_path_that_names_none_or_several_variables_is_refused(path):
    with pytest.raises(ValueError, match=path):
        NAG(0.1, decayed_variables=["net/kernel/kernel", path]).build(build_net().trainable_variables)


def test_the_penalty_is_added_once_a_step_under_accumulation():
    variable = keras.Variable([[2.0]], name="kernel")
    optimizer = NAG(0.1, momentum=0.0, weight_decay=0.5, gradient_accumulation_steps=2)
    optimizer.build([variable])
    for gradient in (1.0, 3.0):
        optimizer.apply([keras.ops.convert_to_tensor([[gradient]])])
    np.testing.assert_allclose(variable.numpy(), [[2.0 - 0.1 * (2.0 + 0.5 * 2.0)]], rtol=1e-6)


def test_sparse_gradients_of_an_embedding_work():
    net = keras.Sequential([keras.Input((3,), dtype="int32"), layers.Embedding(7, 2), layers.Flatten()])
    before = net.get_weights()[0].copy()
    net.compile(NAG(0.1), "mse")
    net.fit(np.array([[0, 1, 1]]), np.ones((1, 6)), verbose=0)
    moved = np.any(net.get_weights()[0] != before, axis=1)
    assert moved.tolist() == [True, True, False, False, False, False, False]


GRADIENTS = np.array([[3.0, -4.0], [1.0, 0.5]], "float32")  # one a replica
TOTAL = GRADIENTS.sum(0)
OF_NORM_2 = TOTAL * 2 / np.linalg.norm(TOTAL)


@pytest.mark.parametrize("wrap", [None, LossScaling, keras.optimizers.LossScaleOptimizer])
@pytest.mark.parametrize(
    ("clip", "wanted"),
    [
        ({"global_clipnorm": 2.0}, OF_NORM_2),
        ({"clipnorm": 2.0}, OF_NORM_2),
        ({"clipvalue": 0.7}, np.clip(TOTAL, -0.7, 0.7)),
        ({}, TOTAL),
    ],
)
def test_the_gradient_summed_once_over_replicas_is_clipped(two_replicas, clip, wanted, wrap):
    scale = 64.0 if wrap else 1.0
    with two_replicas.scope():
        weight = keras.Variable([0.0, 0.0], name="kernel")
        optimizer = NAG(1.0, momentum=0.0, **clip)
        optimizer = wrap(optimizer, initial_scale=scale) if wrap else optimizer
        optimizer.build([weight])

    def step():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        optimizer.apply([scale * tf.constant(GRADIENTS)[replica]], [weight])

    tf.function(lambda: two_replicas.run(step))()
    for part in weight.value.values:
        np.testing.assert_allclose(-part.numpy(), wanted, rtol=1e-5)


def test_a_rate_of_its_own_scales_one_variables_steps():
    weights = [keras.Variable(np.ones(3), name=name) for name in ("slow", "fast")]
    optimizer = NAG(0.1, momentum=0.9, lr_multipliers={"slow": 0.25})
    optimizer.build(weights)
    for _ in range(3):
        optimizer.apply([np.ones(3, "float32")] * 2, weights)
    moved = [1 - np.asarray(weight) for weight in weights]
    np.testing.assert_allclose(moved[0], moved[1] / 4, rtol=1e-5)
    assert NAG.from_config(optimizer.get_config()).lr_multipliers == {"slow": 0.25}
    with pytest.raises(ValueError, match="The path 'other' in lr_multipliers matches 0 trainable variables"):
        NAG(0.1, lr_multipliers={"other": 0.5}).build(weights)
