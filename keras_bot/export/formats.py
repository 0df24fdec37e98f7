"""Single-file export formats that run without keras_bot: how to write, run and read each of them.

| suffix | written by | runs on | image sizes | location of the description |
|---|---|---|---|---|
| .keras | Keras | Keras | any | model.json in its archive |
| .onnx | tf2onnx, through Keras | ONNX Runtime and others | any | metadata_props, each value as JSON |
| .tflite | TensorFlow, through Keras | LiteRT | one; the batch can be resized | model.json in an archive at its end |
"""

import contextlib
import dataclasses
import importlib.util
import io
import json
import os
import pathlib
import warnings
import zipfile
from collections.abc import Callable

import keras
import numpy as np

from keras_bot.errors import MisuseError, RunError, unknown
from keras_bot.model_files import ARCHIVED_DESCRIPTION, read_description


@dataclasses.dataclass(frozen=True)
class Contents:
    """Text descriptions of a file's inputs and outputs, and the description stored in it."""

    inputs: list[str]
    outputs: list[str]
    description: dict


@dataclasses.dataclass(frozen=True)
class FileFormat:
    """A file format.

    Args:
        name: name of the format for users.
        any_size: whether a file takes images of other sizes than the one it was written with.
        packages: packages needed in addition to keras_bot's own; `keras_bot[name]` installs them.
        write: writes a file, from (model, path, description, image size for formats with a fixed one).
        run: from a path, returns the function from images float32 (B, H, W, 3) to outputs, in the format's own runtime.
        read: returns the contents of the file at a path.
    """

    name: str
    any_size: bool
    packages: tuple[str, ...]
    write: Callable[[keras.Model, pathlib.Path, dict, int | None], None]
    run: Callable[[pathlib.Path], Callable]
    read: Callable[[pathlib.Path], Contents]


def find_format(path: str | os.PathLike) -> FileFormat:
    """Returns the format of a path's suffix. Raises MisuseError if it is unknown or its packages are not installed."""
    suffix = pathlib.Path(path).suffix
    if suffix not in FORMATS:
        raise unknown("suffix", suffix, FORMATS)
    format = FORMATS[suffix]
    missing = [package for package in format.packages if importlib.util.find_spec(package) is None]
    if missing:
        raise MisuseError(
            f"{suffix} files need {', '.join(missing)}, which is not installed. "
            f"Run `pip install 'keras_bot[{format.name}]'`."
        )
    return format


def _write_keras(model, path, description, size):
    model.save(path)
    _append_description(path, description)


def _run_keras(path):
    return _load_keras(path).__call__


def _read_keras(path):
    model = _load_keras(path)
    model = getattr(model, "network", model)  # a detector's network
    inputs, outputs = (
        [f"{tensor._keras_history.operation.name} {_describe(tensor.dtype, tensor.shape)}" for tensor in tensors or ()]
        for tensors in (getattr(model, "inputs", ()), getattr(model, "outputs", ()))
    )
    return Contents(inputs, outputs, read_description(path))


def _load_keras(path):
    if not zipfile.is_zipfile(path):
        raise RunError(f"Cannot read {path} as a .keras file: it is damaged, or of another format.")
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def _write_onnx(model, path, description, size):
    import onnx

    signature = [keras.layers.InputSpec("float32", (None, None, None, 3), name="images")]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # tf2onnx uses deprecated NumPy names
        model.export(path, format="onnx", verbose=False, input_signature=signature)
    proto = onnx.load(path)
    _rename_output(proto.graph, "probabilities")
    _name_sizes(proto.graph)
    onnx.helper.set_model_props(proto, {name: json.dumps(value) for name, value in description.items()})
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def _rename_output(graph, name):
    (output,) = graph.output
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [name if old == output.name else old for old in names]
    output.name = name


def _name_sizes(graph):
    """Renames the dynamic dimensions, which tf2onnx numbers, to batch, height and width."""
    del graph.value_info[:]  # it still contains the numbered names
    names = {}
    for size, name in zip(graph.input[0].type.tensor_type.shape.dim, ("batch", "height", "width"), strict=False):
        names[size.dim_param] = size.dim_param = name
    for place, size in enumerate(graph.output[0].type.tensor_type.shape.dim):
        if size.dim_param:
            size.dim_param = ("batch", "height", "width")[place]


def _run_onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    return lambda images: session.run(["probabilities"], {"images": images})[0]


def _read_onnx(path):
    import onnx

    proto = onnx.load(path)

    def describe(value):
        tensor = value.type.tensor_type
        shape = [size.dim_param or size.dim_value for size in tensor.shape.dim]
        return f"{value.name} {_describe(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, shape)}"

    inputs, outputs = ([describe(value) for value in part] for part in (proto.graph.input, proto.graph.output))
    return Contents(inputs, outputs, {prop.key: _value(prop.value) for prop in proto.metadata_props})


def _value(text):
    try:
        return json.loads(text)
    except ValueError:  # written by another tool
        return text


def _write_litert(model, path, description, size):
    import tensorflow as tf

    signature = [keras.layers.InputSpec("float32", (None, size, size, 3), name="images")]
    named = keras.Model(model.input, {"probabilities": model.output}, name=model.name)
    builtin = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}  # Keras would also allow TensorFlow ops
    named.export(path, format="litert", verbose=False, input_signature=signature, target_spec=builtin)
    _append_description(path, description)


def _run_litert(path):
    interpreter = _interpreter(path)

    def run(images):
        (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
        interpreter.resize_tensor_input(source["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])

    return run


def _read_litert(path):
    interpreter = _interpreter(path)
    signature: dict[str, list[str]] = next(iter(interpreter.get_signature_list().values()), {})
    inputs = _describe_litert(interpreter.get_input_details(), signature.get("inputs", []))
    outputs = _describe_litert(interpreter.get_output_details(), signature.get("outputs", []))
    return Contents(inputs, outputs, read_description(path))


def _describe_litert(details, signature):
    names = signature if len(signature) == len(details) == 1 else [detail["name"] for detail in details]
    shapes = [[None if side < 0 else int(side) for side in detail["shape_signature"]] for detail in details]
    dtypes = [np.dtype(detail["dtype"]).name for detail in details]
    parts = zip(names, dtypes, shapes, strict=True)
    return [f"{name} {_describe(dtype, shape)}" for name, dtype, shape in parts]


def _interpreter(path):
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(os.fspath(path))


def _append_description(path, description):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(ARCHIVED_DESCRIPTION, json.dumps(description, indent=2) + "\n")


def _describe(dtype, shape):
    return f"{dtype} ({', '.join('?' if side is None else str(side) for side in shape)})"


FORMATS = {
    ".keras": FileFormat("keras", True, (), _write_keras, _run_keras, _read_keras),
    ".onnx": FileFormat("onnx", True, ("onnx", "tf2onnx", "onnxruntime"), _write_onnx, _run_onnx, _read_onnx),
    ".tflite": FileFormat("litert", False, ("ai_edge_litert",), _write_litert, _run_litert, _read_litert),
}
