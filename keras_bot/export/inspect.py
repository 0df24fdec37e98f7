"""Text summary of an export, for a terminal."""

import math
import pathlib

from keras_bot.errors import RunError, first_few, first_line
from keras_bot.export.formats import FORMATS, find_format
from keras_bot.export.savedmodel import load_savedmodel


def inspect(path: str | pathlib.Path) -> str:
    """Summarises an exported SavedModel or file: endpoints, shapes, weights, classes, preprocessing, recipe and size.

    Raises:
        MisuseError: if there is no export at `path`, or a package for it is missing.
        RunError: if it can't be read.
    """
    path = pathlib.Path(path)
    if path.suffix in FORMATS and path.is_file():
        contents = _read_file(path)
        sections = {"inputs": contents.inputs, "outputs": contents.outputs, "size": [_megabytes(path.stat().st_size)]}
        return _sections(sections, contents.description)
    loaded, description = load_savedmodel(path)
    endpoints = []
    for name, signature in sorted(loaded.signatures.items()):
        if name != "serving_default":
            (images,) = signature.structured_input_signature[1].values()
            outputs = {key: _describe(spec) for key, spec in sorted(signature.structured_outputs.items())}
            results = ", ".join(f"{key} {text}" if len(outputs) > 1 else text for key, text in outputs.items())
            endpoints.append(f"{name}: images {_describe(images)} -> {results}")
    weights = sum(math.prod(variable.shape) for variable in loaded.variables)
    trainable = sum(math.prod(variable.shape) for variable in loaded.trainable_variables)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    counts = [f"{weights:,}, of which {trainable:,} are trainable", _megabytes(size)]
    return _sections({"endpoints": endpoints, "weights": counts}, description)


def _read_file(path):
    """Returns the contents of a file in one of the `FORMATS`."""
    format, damaged = find_format(path), f"Cannot read {path} as a {path.suffix} file"
    try:
        contents = format.read(path)
    except RunError:
        raise
    except Exception as error:  # the packages raise arbitrary exceptions for damaged files
        raise RunError(f"{damaged}: {first_line(error)}") from None
    if not (contents.inputs and contents.outputs):
        raise RunError(f"{damaged}: it has no inputs and outputs. It is empty or truncated.")
    return contents


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


def _megabytes(size):
    return f"{size / 1e6:.1f} MB on disk"


def _describe(spec):
    shape = ", ".join("?" if size is None else str(size) for size in spec.shape)
    return f"{spec.dtype.name} ({shape})"


def _lines(values):
    return [f"{name}={value}" for name, value in values.items()]
