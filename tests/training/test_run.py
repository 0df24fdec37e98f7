"""A training run restores its state, passes the right plan and callbacks to `fit_from`, and leaves complete files."""

import contextlib
import errno
import json
import os
import signal
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bot import tricks
from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe
from keras_bot.training import run as run_module
from keras_bot.training.callbacks import EpochLine, RunRecorder
from keras_bot.training.checkpoints.checkpoint import Checkpoints
from keras_bot.training.checkpoints.run_lock import lock_run
from keras_bot.training.checkpoints.saver import Saver
from keras_bot.training.distributed.cluster import Cluster
from keras_bot.training.evaluate import ExactLoss
from keras_bot.training.run import TrainingRun, save_portable

STEPS = 5
RECIPE = Recipe(epochs=4, batch_size=8, schedule="cosine", strategy="one_device", keep_checkpoints=3, max_corrupt=2)
DATASET = {
    "name": "flowers",
    "train_images": 40,
    "eval_images": 4,
    "class_names": ["a", "b"],
    "train_checksum": "12",
    "eval_checksum": "34",
}
FACTS = {"recipe": RECIPE.as_text(), "dataset": DATASET}
ROW = {"epoch": 1, "loss": 1.0, "val_loss": 2.0, "val_top1": 0.5, "val_top5": 0.75, "learning_rate": 0.1}
ROWS = [{**ROW, "seconds": 4.0, "images_per_second": 10.0}]


class FakeTask:
    """Saves a network as a text file that counts the saves."""

    metrics = ("top1", "top5")

    def __init__(self):
        self.saved = []

    def save(self, network, path):
        self.saved.append(network)
        path.write_text(f"network {len(self.saved)}")


class FakeEvaluator(keras.callbacks.Callback):
    """Records the arguments of `report`."""

    def __init__(self):
        super().__init__()
        self.reported = []

    def report(self, trainee, folder):
        self.reported.append((trainee, folder))


@pytest.fixture(scope="module")
def trainee():
    """A compiled network of one weight, with its optimizer built."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(tricks.NAG(0.1), "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture
def fit_calls(monkeypatch):
    """The arguments of each call of `fit_from`, which does nothing else here."""
    calls = []

    def fit_from(trainee, train_data, eval_data, strategy, plan, *, callbacks, verbose):
        arguments = {"trainee": trainee, "train_data": train_data, "eval_data": eval_data, "strategy": strategy}
        calls.append(types.SimpleNamespace(**arguments, plan=plan, callbacks=callbacks, verbose=verbose))

    monkeypatch.setattr(run_module, "fit_from", fit_from)
    return calls


@contextlib.contextmanager
def begun(path, trainee, recipe=RECIPE, resume=False, overwrite=False, dataset=DATASET):
    """Enters and begins a run; yields it with its task."""
    with TrainingRun(recipe, path, resume=resume, overwrite=overwrite) as run:
        task = FakeTask()
        run.begin(task, trainee, trainee, {**FACTS, "dataset": dataset}, STEPS)
        yield run, task


def save_state(path, trainee, weight=7.0, **progress):
    """Writes a checkpoint of a run with this weight."""
    progress = {"steps": 8, "epochs": 1, "step": 3, "metrics": [[1.0]], "seconds": 2.0, "history": ROWS, **progress}
    progress = {"corrupt_images": ["old.jpg"], "dataset": DATASET, **progress}
    with begun(path, trainee) as (run, _):
        arrays = run._checkpoints.collect()
        kernel = next(name for name in arrays if name.startswith("model/0/"))
        run._checkpoints.save(progress, {**arrays, kernel: np.full((1, 1), weight, "float32")})


def test_entering_sets_the_dtype_policy_and_the_strategy_and_writes_nothing(tmp_path):
    recipe = Recipe(precision="mixed_bfloat16", strategy="one_device")
    with TrainingRun(recipe, tmp_path / "run", resume=False, overwrite=False) as run:
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        assert run.strategy.replicas == 1
    assert keras.config.dtype_policy().name == "float32" and not (tmp_path / "run").exists()


def test_the_policy_is_restored_after_an_error(tmp_path):
    recipe = Recipe(precision="mixed_bfloat16", strategy="one_device")
    with pytest.raises(KeyError), TrainingRun(recipe, tmp_path / "run", resume=False, overwrite=False):
        raise KeyError("name")
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("flag", ["resume", "overwrite"])
def test_resume_and_overwrite_reach_the_directory(flag, tmp_path, monkeypatch):
    seen = []

    def open_run_directory(*arguments, **flags):
        seen.append((*arguments, flags))
        return None, None

    monkeypatch.setattr(run_module, "open_run_directory", open_run_directory)
    flags = {"resume": False, "overwrite": False, flag: True}
    with TrainingRun(RECIPE, tmp_path, **flags):
        assert seen == [(RECIPE, tmp_path, flags)]


def test_the_workers_reach_the_strategy_and_the_errors(tmp_path, monkeypatch):
    cluster, strategy = Cluster(("a:1", "b:2"), 1), types.SimpleNamespace(workers=2)
    monkeypatch.setattr(run_module, "open_run_directory", lambda *_, **__: (cluster, None))
    monkeypatch.setattr(run_module, "build_strategy", lambda *arguments: (arguments == (RECIPE, cluster)) and strategy)
    error = tf.errors.UnavailableError(None, None, "gone")
    run = TrainingRun(RECIPE, tmp_path, resume=False, overwrite=False)
    with pytest.raises(RunError, match=r"^Another worker was lost: gone\."), run:
        assert run.strategy is strategy
        raise error


def test_backend_errors_in_the_body_are_the_users(tmp_path):
    run = TrainingRun(RECIPE, tmp_path, resume=False, overwrite=False)
    with pytest.raises(RunError, match=r"^Out of memory: OOM Lower --batch_size or --image_size\.$"), run:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM")


def test_beginning_locks_the_directory_and_writes_the_recipe(tmp_path, trainee):
    with begun(tmp_path / "run", trainee) as (run, _):
        assert "--max_corrupt=2" in (tmp_path / "run" / "run.flags").read_text()
        with pytest.raises(MisuseError, match="Another process"), lock_run(tmp_path / "run"):
            pass
        assert isinstance(run._checkpoints, Checkpoints) and run._checkpoints._keep == 3
        assert run._checkpoints.folder == tmp_path / "run" / "checkpoints"
    with lock_run(tmp_path / "run"):
        pass


def test_the_state_is_every_variable_of_network_and_optimizer(tmp_path, trainee):
    with begun(tmp_path, trainee) as (run, _):
        variables = run._checkpoints._variables
    assert list(variables) == ["model/0/kernel", *(n for n in variables if n.startswith("optimizer/"))]
    assert [id(v) for v in variables.values()] == [id(v) for v in (*trainee.variables, *trainee.optimizer.variables)]


def test_the_recorder_and_the_log_of_corrupt_images_follow_the_recipe(tmp_path, trainee):
    with begun(tmp_path, trainee) as (run, _):
        recorder = run.recorder
        assert recorder.history == [] and recorder.facts == {**FACTS, "dataset": DATASET}
        assert recorder._images_per_epoch == STEPS * 8 and recorder.corrupt is run.corrupt
        assert recorder.run is run._directory and recorder._metrics == ("top1", "top5")
        assert run.corrupt.names == [] and run.corrupt.max_corrupt == 2


def test_resuming_restores_weights_progress_history_and_corrupt_images(tmp_path, trainee, fit_calls):
    save_state(tmp_path, trainee)
    trainee.set_weights([np.zeros((1, 1))])
    with begun(tmp_path, trainee, resume=True) as (run, _):
        np.testing.assert_array_equal(trainee.get_weights()[0], [[7.0]])
        assert run.recorder.history == ROWS and run.corrupt.names == ["old.jpg"]
        run.fit(trainee, None, None, None, progress_bar=False)
    plan = fit_calls[0].plan
    assert (plan.first_epoch, plan.first_step) == (1, 3)
    saver = next(callback for callback in fit_calls[0].callbacks if isinstance(callback, Saver))
    assert saver._resumed["metrics"] == [[1.0]] and saver._resumed["seconds"] == 2.0


def test_without_resume_a_state_is_not_restored(tmp_path, trainee, fit_calls):
    save_state(tmp_path, trainee)
    trainee.set_weights([np.zeros((1, 1))])
    with begun(tmp_path, trainee, overwrite=True) as (run, _):
        assert run.recorder.history == [] and trainee.get_weights()[0] == 0
        run.fit(trainee, None, None, None, progress_bar=False)
    assert (fit_calls[0].plan.first_epoch, fit_calls[0].plan.first_step) == (0, 0)


def test_a_run_without_checkpoints_resumes_at_the_start(tmp_path, trainee, fit_calls):
    with begun(tmp_path, trainee, resume=True) as (run, _):
        run.fit(trainee, None, None, None, progress_bar=False)
    assert (fit_calls[0].plan.first_epoch, fit_calls[0].plan.first_step) == (0, 0)


def test_a_state_of_other_data_or_another_network_is_refused(tmp_path, trainee):
    save_state(tmp_path, trainee)
    resumed = begun(tmp_path, trainee, resume=True, dataset={**DATASET, "train_images": 41})
    with pytest.raises(MisuseError, match="train_images was 40, is 41"), resumed:
        pass
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    other.compile(tricks.NAG(0.1), "mse", jit_compile=False)
    other.optimizer.build(other.trainable_variables)
    message = "is from another network, number of classes or version"
    with pytest.raises(RunError, match=message), begun(tmp_path, other, resume=True):
        pass


def test_the_plan_and_the_data_reach_fit(tmp_path, trainee, fit_calls):
    with begun(tmp_path, trainee) as (run, _):
        run.strategy.replicas = 2
        run.fit(trainee, "training data", "evaluation data", None, progress_bar=False)
    call = fit_calls[0]
    assert (call.trainee, call.train_data, call.eval_data) == (trainee, "training data", "evaluation data")
    assert call.strategy is run.strategy
    plan = call.plan
    assert (plan.first_epoch, plan.first_step, plan.epochs, plan.steps_per_epoch) == (0, 0, 4, STEPS)
    assert plan.replica_batch == 4


@pytest.mark.parametrize("with_evaluator", [True, False])
def test_the_callbacks_check_before_they_record_and_save_last(with_evaluator, tmp_path, trainee, fit_calls):
    evaluator = FakeEvaluator() if with_evaluator else None
    with begun(tmp_path, trainee) as (run, _):
        run.fit(trainee, None, None, evaluator, progress_bar=False)
    callbacks = fit_calls[0].callbacks
    kinds = [tricks.StopOnNonFinite, ExactLoss, FakeEvaluator, tricks.LearningRateLog, keras.callbacks.TensorBoard]
    kinds = [kind for kind in [*kinds, RunRecorder, Saver, EpochLine] if with_evaluator or kind is not FakeEvaluator]
    assert [type(callback) for callback in callbacks] == kinds
    assert run.recorder in callbacks and (evaluator in callbacks) is with_evaluator
    board = next(callback for callback in callbacks if isinstance(callback, keras.callbacks.TensorBoard))
    assert str(board.log_dir) == str(tmp_path / "tensorboard") and board.write_graph is False
    line, saver = callbacks[-1], callbacks[-2]
    assert line._epochs == 4 and line._columns == run.recorder.columns
    assert saver._checkpoints is run._checkpoints and saver._recorder is run.recorder
    assert saver._steps_per_epoch == STEPS and saver._every == 0


def test_the_steps_between_checkpoints_reach_the_saver(tmp_path, trainee, fit_calls):
    recipe = Recipe(checkpoint_every=7, strategy="one_device", batch_size=8)
    with begun(tmp_path, trainee, recipe) as (run, _):
        run.fit(trainee, None, None, None, progress_bar=False)
    assert fit_calls[0].callbacks[-2]._every == 7


@pytest.mark.parametrize(
    ("progress_bar", "terminal", "verbose"),
    [(True, False, 1), (False, True, 0), (None, True, 1), (None, False, 0)],
)
def test_a_bar_or_one_line_per_epoch(progress_bar, terminal, verbose, tmp_path, trainee, fit_calls, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    with begun(tmp_path, trainee) as (run, _):
        run.fit(trainee, None, None, None, progress_bar)
    assert fit_calls[0].verbose == verbose
    assert isinstance(fit_calls[0].callbacks[-1], EpochLine) is (verbose == 0)


@pytest.mark.parametrize("progress_bar", [True, False])
def test_other_workers_print_and_write_nothing(progress_bar, tmp_path, trainee, fit_calls):
    with TrainingRun(RECIPE, tmp_path, resume=True, overwrite=False) as run:
        run._directory = None
        run.begin(FakeTask(), trainee, trainee, FACTS, STEPS)
        run.fit(trainee, None, None, None, progress_bar)
        run.recorder.history = ROWS
        assert run.finish(trainee, None) == run.recorder.result()
    assert fit_calls[0].verbose == 0
    kinds = [tricks.StopOnNonFinite, ExactLoss, tricks.LearningRateLog, RunRecorder, Saver]
    assert [type(callback) for callback in fit_calls[0].callbacks] == kinds
    assert list(tmp_path.iterdir()) == []


def test_sigterm_is_handled_by_the_saver_during_fit(tmp_path, trainee, monkeypatch):
    seen = []

    def fit_from(*_, callbacks, **__):
        signal.getsignal(signal.SIGTERM)(signal.SIGTERM, None)
        seen.extend(callback.stop_requested for callback in callbacks if isinstance(callback, Saver))

    monkeypatch.setattr(run_module, "fit_from", fit_from)
    before = signal.getsignal(signal.SIGTERM)
    with begun(tmp_path, trainee) as (run, _):
        run.fit(trainee, None, None, None, progress_bar=False)
    assert seen == [True] and signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("has_state", [True, False])
def test_a_loss_that_is_not_finite_names_the_last_state(has_state, tmp_path, trainee, monkeypatch):
    def fit_from(*_, **__):
        raise tricks.NonFiniteLoss(float("nan"), epoch=1, step=2)

    monkeypatch.setattr(run_module, "fit_from", fit_from)
    state = "No state was saved before it."
    with begun(tmp_path, trainee) as (run, _):
        if has_state:
            run._checkpoints.save({"steps": 1})
            run._checkpoints.save({"steps": 3})
            state = f"The last finite state is in {run._checkpoints.save({'steps': 5})}."
        with pytest.raises(RunError) as raised:
            run.fit(trainee, None, None, None, progress_bar=False)
    assert str(raised.value) == (
        "The loss became nan in epoch 2, step 3. Lower the learning rate, lengthen the warmup, or check the data. "
        + state
    )


def test_too_many_corrupt_images_are_reported_from_fit(tmp_path, trainee, monkeypatch):
    def fit_from(*_, **__):
        for name in ("a.jpg", "b.jpg"):
            run.corrupt.report(name)
        with contextlib.suppress(RunError):
            run.corrupt.report("c.jpg")
        raise tf.errors.InvalidArgumentError(None, None, "wrapped")

    monkeypatch.setattr(run_module, "fit_from", fit_from)
    with begun(tmp_path, trainee) as (run, _), pytest.raises(RunError, match=r"c\.jpg"):
        run.fit(trainee, None, None, None, progress_bar=False)


@pytest.fixture
def drawn(monkeypatch):
    """The arguments of each call of `draw_curves`, which draws nothing here."""
    calls = []
    monkeypatch.setattr(run_module, "draw_curves", lambda *arguments, **options: calls.append((*arguments, options)))
    return calls


def finish(run, trainee, evaluator=None, rows=ROWS):
    run.recorder.history = rows
    return run.finish(trainee, evaluator)


def test_finishing_saves_the_network_and_returns_the_result(tmp_path, trainee, drawn):
    evaluator = FakeEvaluator()
    with begun(tmp_path, trainee) as (run, task):
        result = finish(run, trainee, evaluator)
    assert result == {**run.recorder.result(), "run_dir": str(tmp_path)} and result["top1"] == 0.5
    assert (tmp_path / "model.keras").read_text() == "network 1" and task.saved == [trainee]
    assert json.loads((tmp_path / "metrics.json").read_text())["result"]["best_top1"] == 0.5
    assert evaluator.reported == [(trainee, tmp_path)]
    title = {"metric": "top1", "title": "resnet50_a on imagenet2012"}
    assert drawn == [(ROWS, tmp_path / "curves.png", title)]


@pytest.mark.parametrize(
    ("names", "notice"),
    [([], ""), (["a.jpg", "b.jpg"], "keras-bot: skipped images that can't be decoded (2): a.jpg, b.jpg.\n")],
)
def test_skipped_images_are_reported_at_the_end(tmp_path, trainee, drawn, capsys, names, notice):
    with begun(tmp_path, trainee) as (run, _):
        for name in names:
            run.corrupt.report(name)
        finish(run, trainee)
    assert capsys.readouterr().err == notice


def test_the_title_of_a_folder_is_its_name(tmp_path, trainee, drawn):
    (tmp_path / "photos").mkdir()
    recipe = Recipe(dataset=str(tmp_path / "photos"), model="mobilenet", strategy="one_device", batch_size=8)
    with begun(tmp_path / "run", trainee, recipe) as (run, task):
        task.metrics = ("top5",)
        finish(run, trainee)
    assert drawn[0][-1] == {"metric": "top5", "title": "mobilenet on photos"}


@pytest.mark.parametrize(
    ("tops", "best", "copied"),
    [((0.5,), True, True), ((0.5, 0.4), True, False), ((0.5,), False, False)],
)
def test_the_best_network_is_copied_if_it_is_the_last(tops, best, copied, tmp_path, trainee, drawn):
    rows = [{**ROWS[0], "epoch": number, "val_top1": top} for number, top in enumerate(tops, 1)]
    with begun(tmp_path, trainee) as (run, task):
        if best:
            (tmp_path / "best.keras").write_text("the best")
        finish(run, trainee, rows=rows)
    assert (tmp_path / "model.keras").read_text() == ("the best" if copied else "network 1")
    assert len(task.saved) == (not copied)


def test_the_recorder_saves_the_best_network(tmp_path, trainee):
    with begun(tmp_path, trainee) as (run, task):
        run.recorder.on_epoch_begin(0)
        run.recorder.on_epoch_end(0, ROW)
    assert (tmp_path / "best.keras").read_text() == "network 1" and task.saved == [trainee]


@pytest.mark.parametrize(("shard_by", "checksum"), [("example", True), ("file", False)])
def test_workers_compare_the_data(shard_by, checksum, tmp_path, trainee, monkeypatch):
    recipe = Recipe(shard_by=shard_by, strategy="one_device", batch_size=8)
    compared = []
    with TrainingRun(recipe, tmp_path, resume=False, overwrite=False) as run:
        monkeypatch.setattr(run.strategy, "check_same_data", compared.append)
        run.begin(FakeTask(), trainee, trainee, FACTS, STEPS)
    assert compared == [
        {
            "number of training images": "40",
            "number of evaluation images": "4",
            "list of classes": "['a', 'b']",
            "checksum of some evaluation images": "34",
            **({"checksum of some training images": "12"} if checksum else {}),
        }
    ]


def test_data_that_differ_leave_no_files(tmp_path, trainee, monkeypatch):
    def differ(facts):
        raise MisuseError("differ")

    with TrainingRun(RECIPE, tmp_path / "run", resume=False, overwrite=False) as run:
        monkeypatch.setattr(run.strategy, "check_same_data", differ)
        with pytest.raises(MisuseError, match=r"^differ$"):
            run.begin(FakeTask(), trainee, trainee, FACTS, STEPS)
    assert not (tmp_path / "run").exists()


class FakeStrategy:
    """Records whether a network is written outside the distribution."""

    inside = True

    @contextlib.contextmanager
    def outside_distribution(self):
        self.inside = False
        yield
        self.inside = True


def test_a_network_is_written_to_a_temporary_file_and_renamed(tmp_path):
    strategy, seen = FakeStrategy(), []

    def write(path):
        seen.append((path, strategy.inside, (tmp_path / "model.keras").read_text()))
        path.write_text("new")

    (tmp_path / "model.keras").write_text("old")
    save_portable(write, strategy, tmp_path / "model.keras")
    assert seen == [(tmp_path / ".model.part.keras", False, "old")]
    assert (tmp_path / "model.keras").read_text() == "new" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
        (OSError("HDF5 failed"), "HDF5 failed"),
    ],
)
def test_a_network_that_cannot_be_written_keeps_the_previous_file(error, reason, tmp_path):
    def write(path):
        path.write_text("half")
        raise error

    path = tmp_path / "model.keras"
    path.write_text("old")
    with pytest.raises(RunError) as raised:
        save_portable(write, FakeStrategy(), path)
    assert str(raised.value) == f"Cannot write {path}: {reason}. Fix it, then rerun with --resume."
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
