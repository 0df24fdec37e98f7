"""`keras-bot import-weights`: converts another library's weights to a .keras file for --init_from."""

import json
import os
import pathlib
import shutil
import tempfile
import zipfile

from keras_bot.cli.flags import Flags
from keras_bot.cli.stderr import import_tensorflow
from keras_bot.errors import MisuseError

USAGE = "usage: keras-bot import-weights --source=LIBRARY --file=FILE --output=models/NAME.keras [--model=resnet50_d]"
CARD = "model.json"  # in the .keras archive; --init_from reads it


def main(argv):
    """Imports the weights and prints the report."""
    flags = Flags("import-weights", USAGE)
    flags.add(str, "source", "", "timm, torchvision, keras_hub, keras_applications, gluoncv or paddleclas")
    flags.add(
        str,
        "file",
        "",
        "the weights: .safetensors, .pth, .h5, .weights.h5, .keras, .params, .npz; a preset's directory",
    )
    flags.add(str, "model", "", "the network that they must be of; empty finds out")
    flags.add(int, "num_classes", 0, "classes of the network; 0 is the file's, another number makes a new head")
    flags.add(str, "config", "", "timm's config.json or keras-hub's preprocessor.json; empty is one beside the file")
    flags.add(str, "output", "", "the .keras file to write, and a .json of the same name that describes it")
    flags.add(bool, "verbose", False, "list every tensor with its shapes")
    flags.add(bool, "overwrite", False, "replace the output")
    flags.expect_no_arguments(argv)
    if flags.help_wanted():
        return
    for name in ("source", "file", "output"):
        if not getattr(flags, name):
            raise MisuseError(f"Expected --{name}, received nothing. {USAGE}")
    if flags.num_classes < 0:
        raise MisuseError(f"Expected --num_classes from 1 on, or 0 for the file's, received {flags.num_classes}.")
    output = pathlib.Path(flags.output)
    if output.suffix != ".keras":
        raise MisuseError(f"Expected --output to end in .keras, received {output}.")
    for path in (output, output.with_suffix(".json")):
        if path.is_dir() or (path.exists() and not flags.overwrite):
            raise MisuseError(f"{path} exists already. Choose another --output, or --overwrite to replace a file.")
    nearest = next(folder for folder in output.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise MisuseError(f"Expected --output in a folder, received {output}, where {nearest} is a file.")
    import_tensorflow()

    from keras_bot import interop

    options = {"source": flags.source, "num_classes": flags.num_classes or None, "config": flags.config or None}
    model, report = interop.load(flags.file, flags.model or None, **options)
    _write(model, report.description(), output)
    print(report.table(flags.verbose))
    print(f"written       {output}")


def _write(model, description, output):
    """Atomically saves the network, which contains its description, and the description as a separate .json."""
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".part", dir=output.parent))
    text = (json.dumps(description, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
    try:
        model.save(folder / output.name)
        with zipfile.ZipFile(folder / output.name, "a") as archive:
            archive.writestr(CARD, text)
        (folder / CARD).write_bytes(text)
        os.replace(folder / output.name, output)
        os.replace(folder / CARD, output.with_suffix(".json"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
