"""Distillation teacher (5.3): any trained classifier, adapted to the student's images.

    the student's normalised images -> the teacher's normalisation -> its image size, bilinear -> its network -> logits,
    the classes in the student's order

Each conversion is included only where teacher and student differ. Supported sources:

| `--teacher` | classes, image size | normalisation |
|---|---|---|
| a run directory, a .keras file of `import-weights` or `export` | from its metrics.json or description | keras_bot's |
| another .keras file | unknown except for a fixed input shape | keras_bot's, or from its description |
| a SavedModel of `keras-bot export` | from its model.json | from its model.json |
| a keras-hub `save_to_preset` directory of a ResNet, or a preset name | its image converter's size | its own |

No code in these files is run.
"""

import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_bot import interop
from keras_bot.errors import MisuseError, first_line
from keras_bot.interop.preprocessing import OWN_PREPROCESSING, convert_channels
from keras_bot.model_files import class_names_of, read_network
from keras_bot.recipe import Recipe
from keras_bot.surgery import output_layers
from keras_bot.tricks.logits import check_logits

_PRESET_FILES = ("task.json", "config.json")  # a keras-hub save_to_preset directory contains one of them


def load_teacher(recipe: Recipe, num_classes: int, class_names: Sequence[str] = ()) -> keras.Model | None:
    """Loads a recipe's teacher; returns None if it has none.

    The model maps the student's images (B, S, S, 3) to float32 logits (B, K).

    Args:
        recipe: its `teacher` is the path or preset to load, its `image_size` is S.
        num_classes: K.
        class_names: classes of the student's training set, in label order.

    Raises:
        MisuseError: if it cannot be read, does not return logits, or has other classes.
    """
    if not recipe.teacher:
        return None
    network, description, preprocessing = _read(recipe.teacher)
    _check(network, recipe.teacher, num_classes)
    teacher_classes = class_names_of(description)
    if _has_names(teacher_classes) and _has_names(class_names):
        _reorder_classes(network, recipe.teacher, list(teacher_classes), list(class_names))
    preprocessing = _described_preprocessing(recipe.teacher, description) | preprocessing
    return _prepend_conversion(network, preprocessing, recipe.image_size)


def _read(teacher):
    """Returns the network, its description, and preprocessing that overrides the description's."""
    path = pathlib.Path(teacher)
    if any((path / name).is_file() for name in _PRESET_FILES):
        return _read_preset(path)
    if not path.exists() and (teacher.startswith("resnet_") or "://" in teacher):
        return _download_preset(teacher)
    if not path.exists():
        raise MisuseError(
            f"--teacher={teacher} does not exist. Use a run directory, a .keras file, an exported SavedModel or a "
            "keras-hub preset (resnet_…)."
        )
    try:
        return *read_network(path), {}
    except MisuseError as error:
        raise MisuseError(f"--teacher={teacher}: {error}") from None


def _read_preset(path):
    network, report = interop.load(path, source="keras_hub", normalisation="theirs")
    return network, {}, report.preprocessing


def _download_preset(name):
    """Loads a keras-hub preset by name. It is saved to a temporary directory and read like any preset directory."""
    try:
        import keras_hub
    except ImportError:
        raise MisuseError(
            f"--teacher={name} does not exist. If it is a keras-hub preset, install keras-hub: `pip install keras-hub`."
        ) from None
    with tempfile.TemporaryDirectory() as folder:
        try:
            keras_hub.models.ImageClassifier.from_preset(name).save_to_preset(folder)
        except Exception as error:  # download errors depend on the site and its library
            raise MisuseError(
                f"Cannot load the keras-hub preset --teacher={name}: {type(error).__name__}: {first_line(error)} "
                "Without internet access, use the directory of a preset saved with save_to_preset."
            ) from None
        return _read_preset(pathlib.Path(folder))


def _check(network, teacher, num_classes):
    """Raises MisuseError unless the network maps one batch of RGB images to logits of `num_classes` classes."""
    try:
        classes = check_logits(network, "teacher")
    except ValueError as error:
        raise MisuseError(f"--teacher={teacher}: {error}") from None
    if classes != num_classes:
        raise MisuseError(
            f"--teacher={teacher} has {classes} classes, but the data set has {num_classes}. "
            "Use a teacher with the data set's classes."
        )
    shapes = [tensor.shape for tensor in network.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][-1] not in (None, 3):
        raise MisuseError(f"--teacher={teacher} takes inputs {shapes} instead of RGB images (B, H, W, 3).")


def _has_names(names):
    """Returns whether the classes have names that are not just their numbers."""
    return bool(names) and list(names) != [str(number) for number in range(len(names))]


def _reorder_classes(network, teacher, teacher_classes, student_classes):
    """Permutes the last layer's columns to the student's class order.

    Raises MisuseError if the classes differ or the layer cannot be permuted.
    """
    if teacher_classes == student_classes:
        return
    pairs = enumerate(zip(student_classes, teacher_classes, strict=True))
    index, names = next((index, names) for index, names in pairs if names[0] != names[1])
    difference = f"class {index} is {names[0]!r} in the data set and {names[1]!r} in --teacher={teacher}"
    if sorted(teacher_classes) != sorted(student_classes):
        raise MisuseError(
            f"The teacher was trained on other classes: {difference}. If only their names differ, copy its .keras file "
            "out of the run directory and use the copy, which has no class names."
        )
    head = output_layers(network)[0]
    if len(set(student_classes)) < len(student_classes) or not isinstance(head, keras.layers.Dense):
        raise MisuseError(
            f"The teacher has its classes in another order: {difference}, and its logits cannot be reordered. "
            "Use the teacher's order in the data set."
        )
    order = [teacher_classes.index(name) for name in student_classes]
    head.set_weights([weight[..., order] for weight in head.get_weights()])


def _described_preprocessing(teacher, description):
    """Returns the preprocessing in a description, with keras_bot's own for missing values."""
    try:
        stored = description.get("preprocessing", {})
        size = stored.get("image_size") or description.get("recipe", {}).get("image_size")
        preprocessing: dict[str, Any] = {"image_size": int(size) if size else None}
        if {"mean", "std"} <= stored.keys() and stored.get("takes") != "ours":
            preprocessing |= {name: np.broadcast_to(np.asarray(stored[name], "float64"), 3) for name in ("mean", "std")}
            preprocessing |= {"channels": stored["channels"]} if "channels" in stored else {}
    except (TypeError, ValueError, AttributeError) as error:
        raise MisuseError(
            f"The description of --teacher={teacher} has invalid preprocessing: {error}. Export the teacher again."
        ) from None
    return OWN_PREPROCESSING | preprocessing


def _prepend_conversion(network, preprocessing, size):
    """Prepends the conversion from the student's images of this size; returns `network` itself if none is needed."""
    channels = convert_channels(preprocessing)
    fixed_sizes = network.inputs[0].shape[1:3]
    teacher_size = [fixed or preprocessing["image_size"] or size for fixed in fixed_sizes]
    x = images = keras.Input((size, size, 3), name="images", dtype="float32")
    if channels.order != (0, 1, 2):
        x = keras.ops.flip(x, axis=-1)
    if not np.allclose(channels.scale, 1, atol=1e-6) or not np.allclose(channels.shift, 0, atol=1e-6):
        scale, shift = channels.scale.tolist(), channels.shift.tolist()
        x = keras.layers.Rescaling(scale, shift, name="normalise", dtype="float32")(x)
    if teacher_size != [size, size]:
        x = keras.layers.Resizing(*teacher_size, interpolation="bilinear", name="resize", dtype="float32")(x)
    return network if x is images else keras.Model(images, network(x), name=network.name)
