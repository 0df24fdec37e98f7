import keras
import pytest
from keras import layers

from keras_bot.tricks import NAG, is_kernel, split_by_decay

pytestmark = pytest.mark.core


def build_model():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, name="bias_branch"),
            layers.BatchNormalization(name="dense"),
            layers.DepthwiseConv2D(3, name="gamma"),
            layers.SeparableConv2D(4, 3, name="beta"),
            layers.Conv2DTranspose(4, 3, name="bias"),
            layers.GlobalAveragePooling2D(),
            layers.LayerNormalization(name="norm"),
            layers.Dense(2, name="kernel"),
        ],
        name="net",
    )


def test_kernels_are_recognised_by_role_and_not_by_their_layers_names():
    decayed, spared = split_by_decay(build_model())
    assert [v.path for v in decayed] == [
        "net/bias_branch/kernel",
        "net/gamma/kernel",
        "net/beta/depthwise_kernel",
        "net/beta/pointwise_kernel",
        "net/bias/kernel",
        "net/kernel/kernel",
    ]
    assert [v.path for v in spared] == [
        "net/bias_branch/bias",
        "net/dense/gamma",
        "net/dense/beta",
        "net/gamma/bias",
        "net/beta/bias",
        "net/bias/bias",
        "net/norm/gamma",
        "net/norm/beta",
        "net/kernel/bias",
    ]


def test_frozen_variables_are_in_neither_list():
    model = build_model()
    model.get_layer("kernel").trainable = False
    assert not [v.path for part in split_by_decay(model) for v in part if "/kernel/" in v.path]


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("kernel", (3, 3, 4, 8), True),
        ("kernel", (8,), False),
        ("bias", (8, 8), False),
        ("my_kernel", (8, 8), False),
        ("stem_conv_kernel:0", (3, 3, 4, 8), True),
        ("kernel_bias:0", (8,), False),
        ("kernel_gamma:0", (8, 8), False),
    ],
)
def test_name_and_rank_decide(name, shape, expected):
    assert is_kernel(keras.Variable("zeros", shape=shape, name=name)) is expected


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="SavedModels are TensorFlow's")
def test_the_weights_of_a_savedmodel_are_recognised_as_well(tmp_path):
    model = build_model()
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", model.call, [keras.InputSpec("float32", (None, 8, 8, 3))])
    archive.write_out(str(tmp_path / "saved"), verbose=False)
    layer = keras.layers.TFSMLayer(str(tmp_path / "saved"), call_endpoint="serve", trainable=True)
    decayed = sorted(tuple(v.shape) for v in layer.trainable_variables if is_kernel(v))
    assert decayed == sorted(tuple(v.shape) for v in split_by_decay(model)[0])


class Mixer(layers.Layer):
    """A custom layer, whose weights have names of its own."""

    def build(self, shape):
        self.mixing = self.add_weight(name="mixing", shape=(shape[-1], 3))
        self.bias = self.add_weight(name="bias", shape=(2, 3))

    def call(self, inputs):
        return inputs @ self.mixing


def test_weights_that_kernels_leaves_out_are_named_once():
    net = keras.Sequential([keras.Input((2,)), Mixer(name="mixer"), layers.Dense(1)], name="net")
    optimizer = NAG(0.1, weight_decay=0.5)
    with pytest.warns(UserWarning, match=r"rank 2 or more: net/mixer/mixing\. To decay them") as caught:
        optimizer.build(net.trainable_variables)
        optimizer.build(net.trainable_variables)
    assert len(caught) == 1


@pytest.mark.parametrize(
    "options", [{"decayed_variables": "all"}, {"decayed_variables": ["mixing"]}, {"weight_decay": 0.0}]
)
def test_a_choice_of_ones_own_needs_no_warning(options, recwarn):
    net = keras.Sequential([keras.Input((2,)), Mixer(name="mixer")])
    NAG(0.1, **{"weight_decay": 0.5, **options}).build(net.trainable_variables)
    assert not recwarn
