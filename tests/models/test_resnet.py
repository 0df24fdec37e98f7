import json
import zipfile

import keras
import numpy as np
import pytest
from keras import ops

from keras_bot.errors import MisuseError
from keras_bot.models import create_model, features, names
from keras_bot.tricks import zero_gamma

pytestmark = pytest.mark.core

SMALL = {"num_classes": 7, "width": 0.125}
ONE_EACH = ["resnet10_d", "resnet14_a", "resnet14_d", "cifar_resnet8_d"]


def _images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype="float32")


def test_names_are_every_depth_and_variant():
    imagenet = {f"resnet{depth}_{variant}" for depth in (10, 14, 18, 26, 34, 50, 101, 152) for variant in "abcd"}
    cifar = {f"cifar_resnet{depth}_{variant}" for depth in (8, 20, 32, 56) for variant in "ad"}
    resnets = [name for name in names() if "resnet" in name]
    assert set(resnets) == imagenet | cifar | {"resnet10_vd", "resnet18_vd", "resnet34_vd"}
    assert len(resnets) == 43


def test_vd_is_d_with_a_projection_in_the_first_block():
    extra = ["stage1_block1_shortcut_bn", "stage1_block1_shortcut_conv"]
    d, vd = ({layer.name for layer in create_model(name, **SMALL).layers} for name in ("resnet18_d", "resnet18_vd"))
    assert sorted(vd - d) == extra and d < vd


@pytest.mark.parametrize("name", ONE_EACH)
def test_model_survives_saving_and_needs_only_keras_to_load(name, tmp_path):
    model = create_model(name, **SMALL)
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        config = json.loads(archive.read("config.json"))["config"]
    assert all(layer["module"].startswith("keras.") for layer in config["layers"])
    assert all(layer["registered_name"] is None for layer in config["layers"])
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    images = _images(2, 40, 40, 3)
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded(images)), ops.convert_to_numpy(model(images)))
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("resnet10_b", {"C2": 4, "C3": 8, "C4": 16, "C5": 32}),
        ("resnet14_a", {"C2": 4, "C3": 8, "C4": 16, "C5": 32}),
        ("resnet14_d", {"C2": 4, "C3": 8, "C4": 16, "C5": 32}),
        ("cifar_resnet8_a", {"C0": 1, "C1": 2, "C2": 4}),
    ],
)
def test_features_have_their_strides_at_any_size(name, strides):
    ends = features(create_model(name, **SMALL))
    for size in [(64, 96), (65, 33), (7, 225), (1, 1)]:
        assert {key: end.shape[1:3] for key, end in ends(_images(1, *size, 3)).items()} == {
            key: tuple(-(-side // stride) for side in size) for key, stride in strides.items()
        }


def test_features_share_weights_and_are_what_the_head_sees():
    model = create_model("resnet18_d", **SMALL)
    images = _images(2, 64, 64, 3)
    kernel, bias = model.get_layer("predictions").get_weights()
    ends = features(model)(images)
    logits = ops.convert_to_numpy(ends["C5"]).mean((1, 2)) @ kernel + bias
    np.testing.assert_allclose(ops.convert_to_numpy(model(images)), logits, rtol=1e-4, atol=1e-5)
    assert features(model).get_layer("stem_1_conv").kernel is model.get_layer("stem_1_conv").kernel


def test_features_of_a_model_without_stages_are_refused():
    image = keras.Input((4, 4, 3))
    with pytest.raises(ValueError, match="C0 … C5"):
        features(keras.Model(image, keras.layers.Flatten()(image)))


def _gammas(model):
    return {layer.name: layer.gamma.numpy() for layer in model.layers if layer.name.endswith("_bn")}


@pytest.mark.parametrize(
    ("name", "last"), [("resnet10_a", "_2_bn"), ("resnet14_d", "_3_bn"), ("cifar_resnet8_d", "_2_bn")]
)
def test_zero_gamma_is_in_the_last_batch_norm_of_each_residual_path(name, last):
    zeroed = {key for key, gamma in _gammas(create_model(name, **SMALL, zero_gamma=True)).items() if not gamma.any()}
    ones = _gammas(create_model(name, **SMALL))
    assert zeroed == {key for key in ones if key.startswith("stage") and key.endswith(last)}
    assert all(np.all(gamma == 1) for gamma in ones.values())


@pytest.mark.parametrize("name", ["resnet10_a", "resnet14_b", "resnet18_vd", "resnet14_d", "cifar_resnet8_d"])
def test_the_initializer_gives_the_weights_of_the_function_for_any_model(name):
    keras.utils.set_random_seed(0)
    built = create_model(name, **SMALL, zero_gamma=True)
    keras.utils.set_random_seed(0)
    searched = create_model(name, **SMALL)
    zero_gamma(searched)
    for ours, theirs in zip(built.get_weights(), searched.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["resnet10_a", "resnet26_b", "resnet26_d", "cifar_resnet8_d"])
def test_zero_gamma_makes_blocks_without_projection_the_identity(name, training):
    model = create_model(name, **SMALL, zero_gamma=True)
    present = {layer.name for layer in model.layers}
    blocks = [key.removesuffix("_add") for key in present if key.endswith("_add")]
    identities = [block for block in blocks if f"{block}_shortcut_conv" not in present]
    assert 0 < len(identities) < len(blocks)
    ends = {
        block: (model.get_layer(f"{block}_1_conv").input, model.get_layer(f"{block}_add").output)
        for block in identities
    }
    probe = keras.Model(model.input, ends)
    for block, (start, end) in probe(_images(2, 64, 64, 3), training=training).items():
        np.testing.assert_array_equal(ops.convert_to_numpy(end), ops.convert_to_numpy(start), err_msg=block)
        assert ops.convert_to_numpy(start).any()


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_computes_in_half_and_gives_float32_logits(dtype):
    model = create_model("resnet14_d", **SMALL, dtype=dtype)
    assert keras.config.dtype_policy().name == "float32"
    assert {v.dtype for v in model.variables} == {"float32"}
    half = dtype.removeprefix("mixed_")
    ends = features(model)(_images(2, 64, 64, 3))
    assert {keras.backend.standardize_dtype(end.dtype) for end in ends.values()} == {half}
    logits = model(_images(2, 64, 64, 3))
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert model.output.dtype == "float32"
    pooled = create_model("resnet14_d", **SMALL, dtype=dtype, include_top=False, pooling="avg")
    assert pooled.output.dtype == "float32"


def test_the_global_policy_counts_and_is_left_alone():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = create_model("cifar_resnet20_a", **SMALL)
        assert model.get_layer("C2").compute_dtype == "bfloat16"
        assert create_model("cifar_resnet20_a", **SMALL, dtype="float32").get_layer("C2").compute_dtype == "float32"
        with pytest.raises(ValueError):
            create_model("cifar_resnet20_a", **SMALL, dtype="float33")
        with pytest.raises(TypeError):
            create_model("cifar_resnet20_a", num_classes="ten", dtype="float32")
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy(before)


def test_tops():
    images = _images(2, 64, 64, 3)
    top = {"include_top": False, "width": 0.125}
    last = ops.convert_to_numpy(create_model("resnet10_d", **top)(images))
    assert last.shape == (2, 2, 2, 64)
    for pooling, reduce in (("avg", np.mean), ("max", np.max)):
        model = create_model("resnet10_d", **top, pooling=pooling)
        pooled = ops.convert_to_numpy(model(images))
        end = ops.convert_to_numpy(features(model)(images)["C5"])
        np.testing.assert_allclose(pooled, reduce(end, axis=(1, 2)), rtol=1e-5, atol=1e-6)
    probabilities = ops.convert_to_numpy(create_model("resnet10_d", **SMALL, classifier_activation="softmax")(images))
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    logits = ops.convert_to_numpy(create_model("resnet10_d", **SMALL)(images))
    assert logits.shape == (2, 7) and (logits < 0).any()


def test_width_and_channels():
    model = create_model("resnet50_d", num_classes=3, width=0.5, input_shape=(64, 48, 1))
    assert model.input_shape == (None, 64, 48, 1)
    assert model.output_shape == (None, 3)
    assert model.get_layer("C5").output.shape == (None, 2, 2, 1024)
    assert create_model("resnet18_c", num_classes=1, width=0.001).get_layer("C5").output.shape[-1] == 1


def test_a_seed_gives_the_same_weights_again():
    def weights(seed):
        keras.utils.set_random_seed(seed)
        return np.concatenate([w.ravel() for w in create_model("cifar_resnet8_d", **SMALL).get_weights()])

    first, again, other = weights(1), weights(1), weights(2)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("resnet50d", "resnet50_d"), ("resnet50_e", "resnet50_"), ("ResNet50_D", "resnet50_d")],
)
def test_unknown_name_suggests_the_nearest(name, nearest):
    with pytest.raises(MisuseError, match=f"Unknown model {name!r}. Did you mean .*{nearest}"):
        create_model(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, received 0"),
        ({"include_top": False, "pooling": "mean"}, "'avg' or 'max', received 'mean'"),
        ({"pooling": "avg"}, "only supported with include_top=False"),
        ({"width": 0}, "width must be above 0"),
        ({"width": float("nan")}, "width must be above 0"),
        ({"width": float("inf")}, "width must be above 0"),
        ({"input_shape": (224, 224)}, "input_shape must be"),
        ({"input_shape": (0, 224, 3)}, "input_shape must be"),
        ({"input_shape": (224, 224, None)}, "input_shape must be"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create_model("resnet18_a", **options)


def test_a_misspelt_option_is_refused():
    with pytest.raises(TypeError, match="nun_classes"):
        create_model("resnet18_a", nun_classes=3)


def test_channels_first_is_refused():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="channels_last"):
            create_model("resnet18_a")
    finally:
        keras.config.set_image_data_format("channels_last")
