"""Assignment of other libraries' weights to our networks, with equal outputs.

Equal outputs need equal networks, not only equal weights:

- A convolution's bias (keras.applications, GluonCV's v1) goes into its batch norm's moving mean. This is also exact in
  further training, since subtracting the batch mean cancels a bias.
- The batch norms of keras.applications' ResNets have epsilon 1.001e-5, ours 1e-5: the difference goes into the moving
  variance. The batch norms of its Inception-V3 have no gamma: ours is 1.
- Padding and pooling agree: k // 2 zeros on each side. Max pooling follows a ReLU, so that zeros are equivalent to
  PyTorch's minus infinity. At odd sizes, D's average pooling excludes padding, as `ceil_mode` without
  `count_include_pad`.
- Where a library's Inception-V3 or MobileNet differs from the paper's, we have a separate network: `inception_v3_tf`,
  `mobilenet_v1_relu6`, `mobilenet_v1_tf`. The last equals keras.applications' at multiples of 32. At other sizes,
  keras.applications rounds down where TF-slim and we round up.
"""

from collections.abc import Mapping

import keras
import numpy as np

from keras_bot.errors import MisuseError, first_few, unknown
from keras_bot.interop.matching import HEAD, Match, check_source, match
from keras_bot.interop.preprocessing import CHANNELS, convert_channels, default_preprocessing, fold_normalisation
from keras_bot.interop.report import Report, Use
from keras_bot.models import inception
from keras_bot.models.layers import BN_EPSILON
from keras_bot.models.resnet import DEPTHS

# (source, network): batch norm epsilon where it differs from ours
EPSILON = {("keras_applications", f"resnet{depth}_a"): 1.001e-5 for depth in DEPTHS}
NOTES = {  # further notes for the report
    ("torchvision", "inception_v3"): "the preprocessing includes torchvision's transform_input; a network that was "
    "trained without it needs other preprocessing",
    ("keras_applications", "mobilenet_v1_tf"): "the outputs equal the source's for image sizes that are multiples of "
    "32; for others, the source rounds feature map sizes down and this network rounds them up",
}
NORMALISATIONS = ("ours", "theirs")
HEADS = ("keep", "new")
EXACT = 1e-6  # in grey levels


def assign_tensors(
    model: keras.Model,
    tensors: Mapping[str, np.ndarray],
    source: str,
    *,
    head: str = "keep",
    normalisation: str = "ours",
    preprocessing: dict | None = None,
    file: str = "the tensors",
) -> Report:
    """Assigns another library's weights to one of our networks.

    Args:
        model: network from `models.create_model` of the same architecture: float32 images (B, H, W, 3) to logits, or
            without the head.
        tensors: tensors by the library's names, in its layout.
        source: timm, torchvision, keras_hub, keras_applications, gluoncv or paddleclas.
        head: "keep" uses the file's head if it has as many classes as the model; "new" keeps the model's head.
        normalisation: "ours" converts the network to images normalised by keras_bot; the module `preprocessing`
            explains the accuracy. "theirs" keeps the first layer's weights, for images normalised by the library.
        preprocessing: settings that override the library's default preprocessing.
        file: name of the tensors in errors.

    Raises:
        MisuseError: if a tensor is missing, left over, of another shape or not finite as float32, or the model has
            another architecture; the model is unchanged.
    """
    check_source(source)
    for kind, value, known in (("head", head, HEADS), ("normalisation", normalisation, NORMALISATIONS)):
        if value not in known:
            raise unknown(kind, value, known)
    found = match(model, tensors, source, head, file)
    preprocessing = default_preprocessing(source, found.name) | (preprocessing or {})
    if preprocessing["channels"] not in CHANNELS:
        raise unknown("channel order", preprocessing["channels"], CHANNELS)
    _check_finite({key: tensors[key] for key in found.names.values()}, file)
    values = _without_biases(found.arrays, EPSILON.get((source, found.name), BN_EPSILON) - BN_EPSILON)
    if normalisation == "ours":
        _fold(values, preprocessing)
    _check_finite({"/".join(place): values[place] for place in found.variables}, f"the network of {file}")
    for place, variable in found.variables.items():
        variable.assign(_float32(values[place]))
    uses = [
        Use(key, tuple(tensors[key].shape), *place, tuple(found.arrays[place].shape))
        for place, key in found.names.items()
    ]
    return Report(
        source=source,
        model=found.name,
        num_classes=found.classes,
        file_classes=found.file_classes,
        head=found.head,
        uses=tuple(uses),
        ignored=found.ignored,
        notes=tuple(_notes(found, source, preprocessing, normalisation)),
        preprocessing=preprocessing | {"takes": normalisation},
    )


def _check_finite(arrays, owner):
    """Raises MisuseError, which names the arrays, if any have values that are NaN or infinite as float32."""
    broken = []
    for name, array in arrays.items():
        count = array.size - np.count_nonzero(np.isfinite(_float32(array)))
        if count:
            broken.append(f"{name} ({count} of {array.size} values)")
    if broken:
        raise MisuseError(
            f"Some weights in {owner} are NaN, infinite or too large for float32: {first_few(broken)}. "
            "Use another copy of the file."
        )


def _float32(array):
    with np.errstate(over="ignore"):
        return np.asarray(array, "float32")


def _without_biases(arrays, epsilon):
    """Folds biases into the moving means and adds `epsilon` to the moving variances, in float64."""
    values = {place: array for place, array in arrays.items() if place.weight != "bias" or place.layer == HEAD}
    for layer, weight in arrays.keys() - values.keys():
        norm = (layer.removesuffix("conv") + "bn", "moving_mean")
        values[norm] = values[norm].astype("float64") - arrays[layer, weight]
    for place in values:
        if place.weight == "moving_variance" and epsilon:
            values[place] = values[place].astype("float64") + epsilon
    return values


def _stem(places):
    """Returns the names of the first convolution and its batch norm."""
    return ("stem_1_conv", "stem_1_bn") if ("stem_1_conv", "kernel") in places else ("stem_conv", "stem_bn")


def _fold(values, preprocessing):
    convolution, norm = _stem(values)
    kernel, mean = (convolution, "kernel"), (norm, "moving_mean")
    values[kernel], values[mean] = fold_normalisation(values[kernel], values[mean], preprocessing)


def _notes(found: Match, source, preprocessing, normalisation):
    biases = sum(weight == "bias" and layer != HEAD for layer, weight in found.arrays)
    if biases:
        yield f"{biases} convolution biases were folded into the moving means of the following batch norms"
    if epsilon := EPSILON.get((source, found.name)):
        yield (
            f"the difference of the batch norms' epsilon, {epsilon:g} in the source and {BN_EPSILON:g} here, was added "
            "to the moving variances"
        )
    if not found.scaled:
        yield "the source's batch norms have no gamma; here it is 1"
    if found.auxiliary:
        yield f"the auxiliary head, which is only for training, was ignored: {first_few(found.auxiliary)}"
    if note := NOTES.get((source, found.name)):
        yield note
    if found.dropped:
        difference = f"{found.file_classes} classes in the file, {found.classes or 'no head'} here"
        yield f"the file's head was not used ({difference}): {', '.join(found.dropped)}"
    if halves := {a.dtype.name for a in found.arrays.values()} - {"float32"}:
        yield f"the file contains {', '.join(sorted(halves))}; the network uses float32"
    if normalisation == "ours":
        shift = convert_channels(preprocessing).shift
        no_padded_border = found.name in inception.ARCHITECTURES
        error = 0.0 if no_padded_border else np.abs(shift * preprocessing["std"]).max()
        border = f" except at the padded border, whose grey level differs from the source's by up to {error:.2g} of 255"
        order = ", channel order" if preprocessing["channels"] == "BGR" else ""
        yield (
            f"the network takes images normalised by keras_bot: the source's mean{order} and std were folded into "
            f"{' and '.join(_stem(found.variables))}, exactly{'' if error < EXACT else border}"
        )
    else:
        yield "the network takes images normalised by the source's mean and std, not by keras_bot's"
