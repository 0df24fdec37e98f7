"""Training as a story: sources, network, state, fit, records."""

import pathlib
import sys

import keras
import tensorflow as tf

from keras_bot import data, models, tricks
from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe
from keras_bot.training import assemble
from keras_bot.training.checkpoint import Checkpoints
from keras_bot.training.curves import draw_curves
from keras_bot.training.evaluate import ExactLoss, clear_errors, load_network
from keras_bot.training.records import EpochLine, RunDirectory, RunRecorder, check_same_data
from keras_bot.training.strategy import build_from_spec, build_strategy, use_jit


def train(
    recipe: Recipe,
    run_dir: str | pathlib.Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress_bar: bool | None = None,
) -> dict:
    """Trains a network by a recipe and leaves everything about it in a run directory.

    Args:
        recipe: what to train.
        run_dir: where the records go (see `records.py`).
        resume: go on after the last whole epoch that the directory holds; the rest of the run is as if never stopped.
        overwrite: delete the run that the directory holds.
        progress_bar: Keras' progress bar, or one line an epoch; None is a bar on a terminal.

    Returns:
        top1, top5 (fractions), loss, best_top1, epochs, images_per_second, training_seconds, run_dir.

    Raises:
        MisuseError: if recipe, data or directory can't be used.
        RunError: if too many images can't be decoded, or the loss stops being finite.
    """
    run = RunDirectory(run_dir, recipe, resume=resume, overwrite=overwrite)
    if recipe.teacher and run.path.resolve() in (path := pathlib.Path(recipe.teacher).resolve(), path.parent):
        raise MisuseError(f"Expected the teacher outside the run_dir, received {recipe.teacher} in {run.path}.")
    train_source, eval_source = (assemble.open_source(recipe, split) for split in ("train", "eval"))
    steps_per_epoch = steps_in_epoch(recipe, train_source)
    strategy = build_strategy(recipe)
    keras.utils.set_random_seed(recipe.seed)  # after the sources: preparing a data set draws random numbers too
    with tricks.mixed_precision(recipe.precision), strategy.scope():
        model, trainee = build_trainee(recipe, train_source, strategy)
        trainee.optimizer.build(model.trainable_variables)
        run.begin()
        checkpoints = Checkpoints(run.checkpoints, model, trainee.optimizer)
        facts = describe(recipe, model, train_source, eval_source)
        progress = checkpoints.restore() if resume else {}
        check_same_data(run, progress, facts["dataset"])
        first_epoch = progress.get("epochs", 0)
        corrupt = data.CorruptLog(recipe.max_corrupt, progress.get("corrupt_images", ()))
        recorder = RunRecorder(
            run,
            checkpoints,
            facts,
            steps_per_epoch * recipe.batch_size,
            corrupt,
            progress.get("history", ()),
        )
        show_bar = sys.stdout.isatty() if progress_bar is None else progress_bar
        train_data = assemble.training_data(recipe, train_source, corrupt, first_epoch=first_epoch)
        eval_data = assemble.evaluation_data(recipe, eval_source, corrupt)
        build_from_spec(trainee, eval_data)
        _fit(
            trainee,
            train_data,
            eval_data,
            epochs=recipe.epochs,
            initial_epoch=first_epoch,
            steps_per_epoch=steps_per_epoch,
            shuffle=False,
            verbose=1 if show_bar else 0,
            callbacks=[
                tricks.StopOnNonFinite(),
                ExactLoss(),
                tricks.LearningRateLog(),
                keras.callbacks.TensorBoard(run.tensorboard, write_graph=False),
                recorder,
                *([] if show_bar else [EpochLine()]),
            ],
            corrupt=corrupt,
            checkpoints=checkpoints,
        )
    recorder.write()
    save_for_anyone(model, run.model)
    draw_curves(recorder.history, run.curves, title=f"{recipe.model} on {pathlib.Path(recipe.dataset).name}")
    return {**recorder.result(), "run_dir": str(run.path)}


def _fit(trainee, train_data, eval_data, *, initial_epoch, epochs, corrupt, checkpoints, **options):
    """`fit`, with what can go wrong in it told as a user needs it."""
    if initial_epoch >= epochs:
        return
    try:
        with clear_errors(corrupt):
            trainee.fit(train_data, validation_data=eval_data, initial_epoch=initial_epoch, epochs=epochs, **options)
    except tricks.NonFiniteLoss as error:
        kept = checkpoints.files()
        state = f"The last good state is kept in {kept[-1]}." if kept else "No epoch was good, so nothing was saved."
        raise RunError(f"{error} {state}") from None


def build_trainee(
    recipe: Recipe, source: data.Source, strategy: tf.distribute.Strategy
) -> tuple[keras.Model, keras.Model]:
    """The network for a training set and the compiled model to `fit`, in the scope of policy and strategy.

    Raises:
        MisuseError: if the teacher, or the training set, can't be used.
    """
    model = assemble.build_model(recipe, source.num_classes)
    trainee = assemble.compile_trainee(
        recipe,
        model,
        assemble.build_schedule(recipe, steps_in_epoch(recipe, source)),
        teacher=load_teacher(recipe, source.num_classes),
        jit=use_jit(recipe, strategy),
    )
    return model, trainee


def steps_in_epoch(recipe: Recipe, source) -> int:
    """Whole batches in the training set. Raises MisuseError if there is none, or nothing to tell apart."""
    if source.num_classes < 2:
        raise MisuseError(f"Expected at least 2 classes, received {source.num_classes} in {source.name}.")
    if recipe.batch_size > source.size:
        raise MisuseError(
            f"Expected a batch_size of at most the {source.size} training images of {source.name}, "
            f"received {recipe.batch_size}."
        )
    return source.size // recipe.batch_size


def load_teacher(recipe: Recipe, num_classes: int) -> keras.Model | None:
    """The distillation's teacher, from a .keras file or a run directory. Raises MisuseError if it can't be used."""
    if not recipe.teacher:
        return None
    path = pathlib.Path(recipe.teacher)
    teacher = load_network(path / "model.keras" if path.is_dir() else path, num_classes=num_classes)
    try:
        tricks.check_logits(teacher, "teacher")
    except ValueError as error:
        raise MisuseError(f"--teacher={recipe.teacher}: {error}") from None
    return teacher


def save_for_anyone(model: keras.Model, path: pathlib.Path):
    """Saves the network as float32, without its training state: it loads where keras_bot isn't installed."""
    partial = path.with_name(".model.part.keras")
    tricks.recast(model, "float32").save(partial)
    partial.replace(path)


def describe(recipe: Recipe, model: keras.Model, train_source, eval_source) -> dict:
    """What metrics.json tells of a run besides its result."""
    from keras_bot import __version__

    return {
        "recipe": recipe.as_text(),
        "tricks": assemble.active_tricks(recipe),
        "dataset": {
            "name": train_source.name,
            "train_images": train_source.size,
            "eval_images": eval_source.size,
            "class_names": list(train_source.class_names),
        },
        "network": {
            "name": recipe.model,
            "parameters": models.count_parameters(model),
            "flops": models.count_flops(model, recipe.image_size),
        },
        "versions": {"keras_bot": __version__, "keras": keras.__version__, "tensorflow": tf.__version__},
    }
