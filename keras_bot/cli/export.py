"""`keras-bot export`: a run's network as a SavedModel, preprocessing included."""

import json
import pathlib

from keras_bot.cli.flags import Flags, read_recipe
from keras_bot.cli.quiet import import_tensorflow
from keras_bot.errors import MisuseError

USAGE = "usage: keras-bot export --run_dir=RUN [--name=NAME] [--output_dir=savedmodels]"


def main(argv):
    """Exports, and prints where the SavedModel is as one line of JSON."""
    flags = Flags("export", USAGE)
    flags.add(str, "run_dir", "", "the run whose network is exported")
    flags.add(str, "name", "", "name of the SavedModel; empty is the run directory's")
    flags.add(str, "output_dir", "savedmodels", "the directory that it goes into")
    flags.add(bool, "overwrite", False, "replace a SavedModel of that name")
    flags.expect_no_arguments(argv)
    if flags.help_wanted():
        return
    if not flags.run_dir:
        raise MisuseError("Expected --run_dir, the run to export, received nothing.")
    if flags.name in (".", "..") or pathlib.Path(flags.name).name != flags.name:
        raise MisuseError(f"Expected --name as one name without a path, received {flags.name!r}. See --output_dir.")
    run_dir = pathlib.Path(flags.run_dir)
    recipe = read_recipe(run_dir)
    import_tensorflow()

    from keras_bot.export.savedmodel import export_savedmodel
    from keras_bot.training.network import load_network
    from keras_bot.training.records import read_metrics

    metrics = read_metrics(run_dir)
    path = pathlib.Path(flags.output_dir) / (flags.name or run_dir.resolve().name)
    description = {"class_names": metrics["dataset"]["class_names"], **metrics}
    if recipe.task == "classification":
        export_savedmodel(
            load_network(run_dir / "model.keras"),
            path,
            image_size=recipe.image_size,
            transform=recipe.transform,
            eval_crop=recipe.eval_crop,
            description=description,
            overwrite=flags.overwrite,
        )
    else:
        from keras_bot.transfer.serve import export_trained, load_trained

        model = load_trained(run_dir / "model.keras", recipe.task)
        export_trained(model, path, recipe, description, overwrite=flags.overwrite)
    told = [name for name in ("top1", "map", "mean_iou") if name in metrics["result"]]
    print(json.dumps({"savedmodel": str(path), **{name: metrics["result"][name] for name in told}}))
