import keras
import numpy as np
import pytest
from keras import ops

from keras_bot.models import create_model
from keras_bot.models.layers import bottleneck, conv_bn, shortcut_pool

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def model():
    return create_model("resnet50_d", num_classes=40, width=0.5)


def test_kernels_are_xavier_uniform(model):
    kernels = {v.path: v.numpy() for v in model.variables if v.name == "kernel"}
    assert len(kernels) == 56  # 3 + 16 * 3 + 4 + 1
    for path, kernel in kernels.items():
        area = np.prod(kernel.shape[:-2])
        bound = np.sqrt(6 / (area * kernel.shape[-2] + area * kernel.shape[-1]))
        assert np.abs(kernel).max() <= bound * (1 + 1e-6), path  # float32 rounds up, once in a while
        assert np.abs(kernel).max() > 0.97 * bound, path
        assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.1), path


def test_only_the_classifier_has_a_bias_and_it_is_zero(model):
    biases = [v for v in model.variables if v.name == "bias"]
    assert [v.path for v in biases] == ["predictions/bias"]
    assert not biases[0].numpy().any()


def test_batch_norm_is_the_papers_everywhere(model):
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 55
    for norm in norms:
        assert (norm.momentum, norm.epsilon) == (0.9, 1e-5)
        gamma, beta, mean, variance = norm.get_weights()
        assert (gamma == 1).all() and (beta == 0).all() and (mean == 0).all() and (variance == 1).all()


def test_training_moves_the_moving_statistics_by_a_tenth():
    image = keras.Input((None, None, 3))
    net = keras.Model(image, conv_bn(image, 4, 1, name="x"))
    images = np.random.default_rng(0).standard_normal((8, 16, 16, 3), dtype="float32")
    outputs = images @ net.get_layer("x_conv").get_weights()[0][0, 0]
    net(images, training=True)
    _, _, mean, variance = net.get_layer("x_bn").get_weights()
    np.testing.assert_allclose(mean, 0.1 * outputs.mean((0, 1, 2)), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(variance, 0.9 + 0.1 * outputs.var((0, 1, 2)), rtol=1e-3)


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_padding_is_symmetric(kernel_size, strides, size):
    """A kernel with its centre alone samples the image at 0, s, 2s, …; Keras' "same" would shift it."""
    image = keras.Input((None, None, 1))
    net = keras.Model(image, conv_bn(image, 1, kernel_size, strides=strides, relu=False, name="x"))
    kernel = np.zeros((kernel_size, kernel_size, 1, 1))
    kernel[kernel_size // 2, kernel_size // 2] = 1
    net.get_layer("x_conv").set_weights([kernel])
    images = np.random.default_rng(0).standard_normal((1, size, size, 1), dtype="float32")
    expected = images[:, ::strides, ::strides] / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(net(images)), expected, rtol=1e-5)


def test_stem_pool_is_symmetric_too():
    model = create_model("resnet18_a", num_classes=1, width=0.125)
    pooled = model.get_layer("stem_pool").output
    probe = keras.Model(model.input, [model.get_layer("stem_relu").output, pooled])
    x, pooled = map(ops.convert_to_numpy, probe(np.random.default_rng(0).standard_normal((1, 32, 32, 3))))
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::2, ::2]
    np.testing.assert_array_equal(pooled, windows.max((-2, -1)))


@pytest.mark.parametrize(("strided_convolution", "strides"), [(1, [2, 1, 1]), (2, [1, 2, 1])])
def test_stride_is_where_the_variant_says(strided_convolution, strides):
    image = keras.Input((None, None, 8))
    net = keras.Model(image, bottleneck(image, 2, 2, strided_convolution=strided_convolution, gamma="ones", name="x"))
    assert [net.get_layer(f"x_{i}_conv").strides[0] for i in (1, 2, 3)] == strides
    assert net.output_shape[-1] == 8


def test_shortcut_of_d_pools_only_where_there_is_a_stride():
    image = keras.Input((None, None, 8))
    pooled = keras.Model(image, shortcut_pool(image, 16, 2, name="x"))
    plain = keras.Model(image, shortcut_pool(image, 16, 1, name="x"))
    assert [layer.name for layer in pooled.layers[1:]] == ["x_pool", "x_conv", "x_bn"]
    assert [layer.name for layer in plain.layers[1:]] == ["x_conv", "x_bn"]
    assert pooled.get_layer("x_conv").strides == (1, 1)
