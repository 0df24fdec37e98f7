"""Distillation teacher (5.3): any trained classifier, adapted to the student's images.

    the student's normalised images -> the teacher's normalisation -> its image size, bilinear -> its network -> logits,
    the classes in the student's order

Each conversion is included only where teacher and student differ. Supported sources:

| `--teacher` | classes, image size | normalisation |
|---|---|---|
| a run directory, a .keras file of `import-weights` or `export` | from its metrics.json or description | ours |
| another .keras file | unknown except for a fixed input shape | ours, or from its description |
| a SavedModel of `keras-bot export` | from its model.json | from its model.json |
| a keras-hub `save_to_preset` directory of a ResNet, or a preset name | its image converter's size | its own |

No code in these files is run.
"""

import pathlib
import tempfile
from collections.abc import Sequence

import keras
import numpy as np

from keras_bot import interop, tricks
from keras_bot.errors import MisuseError, first_line
from keras_bot.interop.preprocessing import OURS, map_from_ours
from keras_bot.model_files import class_names_of, read_network
from keras_bot.recipe import Recipe
from keras_bot.tricks.precision import output_layers

_PRESET = ("task.json", "config.json")  # a keras-hub save_to_preset directory contains one of them


def load_teacher(recipe: Recipe, num_classes: int, class_names: Sequence[str] = ()) -> keras.Model | None:
    """Loads a recipe's teacher, None if it has none: the student's images (B, S, S, 3) to logits (B, K), float32.

    Args:
        recipe: its `teacher` is the path or preset to load, its `image_size` is S.
        num_classes: K.
        class_names: classes of the student's training set, in label order.

    Raises:
        MisuseError: if it can't be read, gives no logits, or has other classes.
    """
    if not recipe.teacher:
        return None
    network, known, preprocessing = _read(recipe.teacher)
    _check(network, recipe.teacher, num_classes)
    theirs = class_names_of(known)
    if _are_names(theirs) and _are_names(class_names):
        _order_classes(network, recipe.teacher, list(theirs), list(class_names))
    return _for_images_of(recipe.image_size, network, _preprocessing(recipe.teacher, known) | preprocessing)


def _read(given):
    """Returns the network, its description, and preprocessing that overrides the description's."""
    path = pathlib.Path(given)
    if any((path / name).is_file() for name in _PRESET):
        return _read_preset(path)
    if not path.exists() and (given.startswith("resnet_") or "://" in given):
        return _fetch_preset(given)
    if not path.exists():
        raise MisuseError(
            "Expected --teacher as a run directory, a .keras file, an exported SavedModel or a preset of keras-hub "
            f"(resnet_…), received {given}, which isn't there."
        )
    try:
        return *read_network(path), {}
    except MisuseError as error:
        raise MisuseError(f"--teacher={given}: {error}") from None


def _read_preset(path):
    network, report = interop.load(path, source="keras_hub", normalisation="theirs")
    return network, {}, report.preprocessing


def _fetch_preset(name):
    """Loads a keras-hub preset by name, through a temporary directory, so that one reader is enough."""
    try:
        import keras_hub
    except ImportError:
        raise MisuseError(
            f"Expected --teacher as a file, a directory, or with keras-hub installed a preset of its, received {name}. "
            "Check the path, or `pip install keras-hub`."
        ) from None
    with tempfile.TemporaryDirectory() as folder:
        try:
            keras_hub.models.ImageClassifier.from_preset(name).save_to_preset(folder)
        except Exception as error:  # download errors depend on the site and its library
            raise MisuseError(
                f"Can't get keras-hub's preset {name} as --teacher: {type(error).__name__}: {first_line(error)} "
                "Without a network give the directory of its save_to_preset."
            ) from None
        return _read_preset(pathlib.Path(folder))


def _check(network, given, num_classes):
    """Raises MisuseError unless the network maps one batch of RGB images to logits of `num_classes` classes."""
    try:
        classes = tricks.check_logits(network, "teacher")
    except ValueError as error:
        raise MisuseError(f"--teacher={given}: {error}") from None
    if classes != num_classes:
        raise MisuseError(
            f"Expected a teacher of the {num_classes} classes that the data set has; --teacher={given} has {classes}."
        )
    shapes = [tensor.shape for tensor in network.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][-1] not in (None, 3):
        raise MisuseError(f"Expected a teacher of images (B, H, W, 3); --teacher={given} takes {shapes}.")


def _are_names(names):
    """Returns whether the classes have names that are not just their numbers."""
    return bool(names) and list(names) != [str(number) for number in range(len(names))]


def _order_classes(network, given, theirs, ours):
    """Permutes the last layer's columns to the student's class order.

    Raises MisuseError if the classes differ or the layer can't be permuted.
    """
    if theirs == ours:
        return
    number = next(number for number, name in enumerate(ours) if name != theirs[number])
    differ = f"class {number} is {ours[number]!r} in the data set and {theirs[number]!r} in --teacher={given}"
    if sorted(theirs) != sorted(ours):
        raise MisuseError(
            f"Expected a teacher of the data set's classes; {differ}. "
            "If they only have other names, give a copy of its .keras file outside the run, which tells no names."
        )
    head = output_layers(network)[0]
    if len(set(ours)) < len(ours) or not isinstance(head, keras.layers.Dense):
        raise MisuseError(
            f"Expected the data set's classes in the teacher's order; {differ}, whose logits can't be put into another "
            "order. Order the data set's classes."
        )
    order = [theirs.index(name) for name in ours]
    head.set_weights([weight[..., order] for weight in head.get_weights()])


def _preprocessing(given, known):
    """Returns the preprocessing in a description, with keras_bot's own for missing values."""
    try:
        told = known.get("preprocessing", {})
        size = told.get("image_size") or known.get("recipe", {}).get("image_size")
        found = {"image_size": int(size) if size else None}
        if {"mean", "std"} <= told.keys() and told.get("takes") != "ours":
            names = ("mean", "std", "channels")
            found |= {name: told[name] for name in names if name in told}
            found |= {name: np.broadcast_to(np.asarray(found[name], "float64"), 3) for name in ("mean", "std")}
    except (TypeError, ValueError, AttributeError) as error:
        raise MisuseError(
            f"Can't read the preprocessing in the description of --teacher={given}: {error}. Export it again."
        ) from None
    return OURS | found


def _for_images_of(size, network, preprocessing):
    """Prepends the conversion from the student's images; returns the network itself if none is needed."""
    order, scale, shift = map_from_ours(preprocessing)
    own = network.inputs[0].shape[1:3]
    wanted = [fixed or preprocessing["image_size"] or size for fixed in own]
    x = images = keras.Input((size, size, 3), name="images", dtype="float32")
    if order != [0, 1, 2]:
        x = keras.ops.flip(x, axis=-1)
    if not np.allclose(scale, 1, atol=1e-6) or not np.allclose(shift, 0, atol=1e-6):
        x = keras.layers.Rescaling(scale.tolist(), shift.tolist(), name="normalise", dtype="float32")(x)
    if wanted != [size, size]:
        x = keras.layers.Resizing(*wanted, interpolation="bilinear", name="resize", dtype="float32")(x)
    return network if x is images else keras.Model(images, network(x), name=network.name)
