"""Text summary of an export, for a terminal."""

import math
import pathlib

from keras_bot.errors import RunError, first_few, first_line
from keras_bot.export.formats import FORMS, find_form
from keras_bot.export.savedmodel import load_savedmodel


def inspect(path: str | pathlib.Path) -> str:
    """Summarises an exported SavedModel or file: endpoints, shapes, weights, classes, preprocessing, recipe and size.

    Raises:
        MisuseError: if there is no export at `path`, or a package for it is missing.
        RunError: if it can't be read.
    """
    path = pathlib.Path(path)
    if path.suffix in FORMS and path.is_file():
        inputs, outputs, description = _read_file(path)
        size = [f"{path.stat().st_size / 1e6:.1f} MB on disk"]
        return _sections({"inputs": inputs, "outputs": outputs, "size": size}, description)
    loaded, description = load_savedmodel(path)
    endpoints = []
    for name, signature in sorted(loaded.signatures.items()):
        if name != "serving_default":
            (images,) = signature.structured_input_signature[1].values()
            outputs = {key: _form(spec) for key, spec in sorted(signature.structured_outputs.items())}
            results = ", ".join(f"{key} {form}" if len(outputs) > 1 else form for key, form in outputs.items())
            endpoints.append(f"{name}: images {_form(images)} -> {results}")
    weights = sum(math.prod(variable.shape) for variable in loaded.variables)
    trainable = sum(math.prod(variable.shape) for variable in loaded.trainable_variables)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    told = [f"{weights:,}, of which {trainable:,} are trainable", f"{size / 1e6:.1f} MB on disk"]
    return _sections({"endpoints": endpoints, "weights": told}, description)


def _read_file(path):
    """Returns the lines on inputs, the lines on outputs, and the description of a file in one of the `FORMS`."""
    form, damaged = find_form(path), f"Can't read {path} as a {path.suffix} file"
    try:
        inputs, outputs, description = form.read(path)
    except RunError:
        raise
    except Exception as error:  # the packages raise arbitrary exceptions for damaged files
        raise RunError(f"{damaged}: {first_line(error)}") from None
    if not (inputs and outputs):
        raise RunError(f"{damaged}: it has no inputs and outputs. It is empty or cut short.")
    return inputs, outputs, description


def _sections(sections, description):
    names = description.get("class_names", ())
    sections = {
        **sections,
        "classes": [f"{len(names)}: {first_few(names)}"] if names else [],
        **{name: _lines(description.get(name, {})) for name in ("preprocessing", "result", "recipe")},
    }
    return "\n\n".join(
        "\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in sections.items() if lines
    )


def _form(spec):
    shape = ", ".join("?" if size is None else str(size) for size in spec.shape)
    return f"{spec.dtype.name} ({shape})"


def _lines(values):
    return [f"{name}={value}" for name, value in values.items()]
