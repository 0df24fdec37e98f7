"""`keras-bot import-weights`: converts another library's weights to a .keras file for --init_from."""

import json
import os
import pathlib
import shutil
import tempfile
import zipfile

from keras_bot.cli.backend import start_tensorflow
from keras_bot.cli.flags import Flags
from keras_bot.errors import MisuseError

USAGE = "usage: keras-bot import-weights --source=LIBRARY --file=FILE --output=models/NAME.keras [--model=resnet50_d]"
EXAMPLES = ("keras-bot import-weights --source=timm --file=resnet50d.safetensors --output=models/resnet50_d.keras",)


def main(argv: list[str]) -> None:
    """Imports the weights and prints the report."""
    flags = Flags("import-weights", USAGE, EXAMPLES)
    _add_flags(flags)
    flags.parse_only_flags(argv)
    if flags.handle_help():
        return
    for name in ("source", "file", "output"):
        if not getattr(flags, name):
            raise MisuseError(f"--{name} is required. {USAGE}")
    if flags.num_classes < 0:
        raise MisuseError(f"--num_classes must be at least 0, received {flags.num_classes}.")
    output = pathlib.Path(flags.output)
    _check_output(output, flags.overwrite)
    start_tensorflow()

    from keras_bot import interop

    options = {"source": flags.source, "num_classes": flags.num_classes or None, "config": flags.config or None}
    model, report = interop.load(flags.file, flags.model or None, **options)
    _write(model, report.description(), output)
    print(report.table(flags.verbose))
    print(f"written       {output}")


def _add_flags(flags):
    flags.add(str, "source", "", "library: timm, torchvision, keras_hub, keras_applications, gluoncv or paddleclas")
    help = "weights: a .safetensors, .pth, .h5, .weights.h5, .keras, .params or .npz file, or the directory of a preset"
    flags.add(str, "file", "", help)
    flags.add(str, "model", "", "expected network, see `keras-bot models`; empty detects it")
    help = "number of classes; 0 keeps the head of the file, another number than the file's creates a new head"
    flags.add(int, "num_classes", 0, help)
    help = "timm's config.json or keras-hub's preprocessor.json; empty looks in the folder of the weights"
    flags.add(str, "config", "", help)
    flags.add(str, "output", "", ".keras file to write; a .json file of the same name describes it")
    flags.add(bool, "verbose", False, "list every tensor with its shapes")
    flags.add(bool, "overwrite", False, "replace existing output files")


def _check_output(output, overwrite):
    """Raises MisuseError if the network and its description cannot be written to `output`."""
    if output.suffix != ".keras":
        raise MisuseError(f"--output must end in .keras, received {output}.")
    for path in (output, output.with_suffix(".json")):
        if path.is_dir() or (path.exists() and not overwrite):
            raise MisuseError(f"{path} already exists. Choose another --output, or pass --overwrite to replace a file.")
    nearest = next(folder for folder in output.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise MisuseError(f"Cannot create --output={output}: {nearest} is a file. Choose another folder.")


def _write(model, description, output):
    """Atomically saves the network, which contains its description, and the description as a separate .json."""
    from keras_bot.model_files import ARCHIVED_DESCRIPTION

    output.parent.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".part", dir=output.parent))
    text = (json.dumps(description, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
    try:
        model.save(folder / output.name)
        with zipfile.ZipFile(folder / output.name, "a") as archive:
            archive.writestr(ARCHIVED_DESCRIPTION, text)
        (folder / ARCHIVED_DESCRIPTION).write_bytes(text)
        os.replace(folder / output.name, output)
        os.replace(folder / ARCHIVED_DESCRIPTION, output.with_suffix(".json"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
