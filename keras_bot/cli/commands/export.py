"""`keras-bot export`: exports a run's network as a SavedModel with preprocessing, or as a single file."""

import json
import pathlib

from keras_bot.cli.backend import start_tensorflow
from keras_bot.cli.flags import Flags, read_recipe
from keras_bot.errors import MisuseError, unknown
from keras_bot.export.path_checks import check_savedmodel_path, check_utf8

USAGE = "usage: keras-bot export --run_dir=RUN [--name=NAME] [--output_dir=savedmodels] [--format=savedmodel]"
EXAMPLES = (
    "keras-bot export --run_dir=runs/quickstart --name=mine  # trained by the example in `keras-bot train --help`",
    "keras-bot export --run_dir=runs/quickstart --name=mine --format=onnx",
)
SUFFIXES = {"savedmodel": "", "keras": ".keras", "onnx": ".onnx", "litert": ".tflite", "timm": ".safetensors"}


def main(argv: list[str]) -> None:
    """Exports and prints one line of JSON: path, metrics and, except for timm, the largest output difference."""
    flags = Flags("export", USAGE, EXAMPLES)
    flags.add(str, "run_dir", "", "run directory with the trained network")
    flags.add(str, "name", "", "name of the export, without a suffix; empty uses the name of the run directory")
    flags.add(str, "output_dir", "savedmodels", "directory for the export")
    flags.add(str, "format", "savedmodel", f"format: {', '.join(SUFFIXES)}; litert writes a .tflite file")
    flags.add(bool, "overwrite", False, "replace an existing export with this name")
    flags.parse_only_flags(argv)
    if flags.handle_help():
        return
    if not flags.run_dir:
        raise MisuseError("--run_dir is required: the run to export.")
    if flags.name in (".", "..") or pathlib.Path(flags.name).name != flags.name:
        raise MisuseError(f"--name must not contain a path, received {flags.name!r}. Use --output_dir for the path.")
    if flags.format not in SUFFIXES:
        raise unknown("format", flags.format, SUFFIXES)
    if pathlib.Path(flags.output_dir).is_file():
        raise MisuseError(f"--output_dir={flags.output_dir} is a file. Choose a directory.")
    run_dir = pathlib.Path(flags.run_dir)
    recipe = read_recipe(run_dir)
    path = pathlib.Path(flags.output_dir) / ((flags.name or run_dir.resolve().name) + SUFFIXES[flags.format])
    if flags.format == "savedmodel":
        check_savedmodel_path(path, flags.overwrite)
    check_utf8(path)
    start_tensorflow()

    from keras_bot.training.checkpoints.run_directory import read_metrics

    metrics = read_metrics(run_dir)
    description = {"class_names": metrics["dataset"]["class_names"], **metrics}
    write = {"savedmodel": _write_savedmodel, "timm": _write_timm}.get(flags.format, _write_file)
    line = write(run_dir / "model.keras", path, recipe, description, flags)
    result = {name: metrics["result"][name] for name in ("top1", "map", "mean_iou") if name in metrics["result"]}
    print(json.dumps({**line, **result}))


def _write_savedmodel(source, path, recipe, description, flags):
    from keras_bot.model_files import SAVEDMODEL_DESCRIPTION

    if recipe.task == "classification":
        from keras_bot.export.savedmodel import export_savedmodel
        from keras_bot.model_files import load_network

        export_savedmodel(
            load_network(source),
            path,
            image_size=recipe.image_size,
            transform=recipe.transform,
            eval_crop=recipe.eval_crop,
            description=description,
            overwrite=flags.overwrite,
        )
    else:
        from keras_bot.tasks.serving import export_trained, load_trained

        export_trained(load_trained(source, recipe.task), path, recipe, description, overwrite=flags.overwrite)
    written = json.loads((path / SAVEDMODEL_DESCRIPTION).read_text(encoding="utf-8"))
    return {"savedmodel": str(path), "worst_difference": written["worst_difference"]}


def _write_timm(source, path, recipe, description, flags):
    from keras_bot.interop import save_timm
    from keras_bot.model_files import load_network

    if recipe.width != 1:
        raise MisuseError(
            f"timm's networks have --width=1, but {flags.run_dir} was trained with --width={recipe.width:g}, "
            "which timm cannot load. Choose another --format."
        )
    options = {"image_size": recipe.image_size, "eval_crop": recipe.eval_crop, "overwrite": flags.overwrite}
    return {"format": "timm", "path": str(path), **save_timm(load_network(source), path, **options)}


def _write_file(source, path, recipe, description, flags):
    from keras_bot.export.portable import export_file, write_file
    from keras_bot.model_files import load_network

    size, options = recipe.image_size, {"overwrite": flags.overwrite}
    if recipe.task == "classification":
        options |= {"transform": recipe.transform, "eval_crop": recipe.eval_crop, "description": description}
        worst = export_file(load_network(source), path, image_size=size, **options)
    else:
        from keras_bot.tasks.serving import load_trained

        model = load_trained(source, recipe.task)
        description["task"] = recipe.task
        if recipe.task == "segmentation":
            worst = export_file(model, path, image_size=size, transform=None, description=description, **options)
        elif flags.format == "keras":
            worst = write_file(model, path, model, description, sizes=[(1, size, size), (2, size, size)], **options)
        else:
            raise MisuseError(
                f"--format={flags.format} does not support detectors, because of their NMS. Use savedmodel or keras."
            )
    return {"format": flags.format, "path": str(path), "worst_difference": worst}
