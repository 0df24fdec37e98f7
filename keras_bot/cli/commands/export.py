"""`keras-bot export`: writes a run's network as a SavedModel, preprocessing included, or as a single file."""

import json
import pathlib

from keras_bot.cli.flags import Flags, read_recipe
from keras_bot.cli.stderr import import_tensorflow
from keras_bot.errors import MisuseError, unknown
from keras_bot.export.place import check_place, check_text

USAGE = "usage: keras-bot export --run_dir=RUN [--name=NAME] [--output_dir=savedmodels] [--format=savedmodel]"
SUFFIXES = {"savedmodel": "", "keras": ".keras", "onnx": ".onnx", "litert": ".tflite", "timm": ".safetensors"}


def main(argv):
    """Exports, and prints a line of JSON: path, metrics and, except for timm, largest difference in the outputs."""
    flags = Flags("export", USAGE)
    flags.add(str, "run_dir", "", "the run whose network is exported")
    flags.add(str, "name", "", "name of the export, without a suffix; empty is the run directory's")
    flags.add(str, "output_dir", "savedmodels", "the directory that it goes into")
    flags.add(str, "format", "savedmodel", f"{', '.join(SUFFIXES)}; see the README")
    flags.add(bool, "overwrite", False, "replace an export of that name")
    flags.expect_no_arguments(argv)
    if flags.help_wanted():
        return
    if not flags.run_dir:
        raise MisuseError("Expected --run_dir, the run to export, received nothing.")
    if flags.name in (".", "..") or pathlib.Path(flags.name).name != flags.name:
        raise MisuseError(f"Expected --name as one name without a path, received {flags.name!r}. See --output_dir.")
    if flags.format not in SUFFIXES:
        raise unknown("format", flags.format, SUFFIXES)
    if pathlib.Path(flags.output_dir).is_file():
        raise MisuseError(f"Expected --output_dir as a directory, received the file {flags.output_dir}.")
    run_dir = pathlib.Path(flags.run_dir)
    recipe = read_recipe(run_dir)
    path = pathlib.Path(flags.output_dir) / ((flags.name or run_dir.resolve().name) + SUFFIXES[flags.format])
    if flags.format == "savedmodel":
        check_place(path, flags.overwrite)
    check_text(path)
    import_tensorflow()

    from keras_bot.training.checkpoints.run_directory import read_metrics

    metrics = read_metrics(run_dir)
    description = {"class_names": metrics["dataset"]["class_names"], **metrics}
    write = {"savedmodel": _write_savedmodel, "timm": _write_timm}.get(flags.format, _write_file)
    line = write(run_dir / "model.keras", path, recipe, description, flags)
    told = [name for name in ("top1", "map", "mean_iou") if name in metrics["result"]]
    print(json.dumps({**line, **{name: metrics["result"][name] for name in told}}))


def _write_savedmodel(source, path, recipe, description, flags):
    from keras_bot.model_files import DESCRIPTION

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
    told = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
    return {"savedmodel": str(path), "worst_difference": told["worst_difference"]}


def _write_timm(source, path, recipe, description, flags):
    from keras_bot.interop import save_timm
    from keras_bot.model_files import load_network

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
            raise MisuseError("Expected --format=savedmodel or keras for a detector: its NMS has no other form.")
    return {"format": flags.format, "path": str(path), "worst_difference": worst}
