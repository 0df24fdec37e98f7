"""Before a run, the workers are compared and the run directory is opened; each refusal has its message."""

import importlib
import json

import keras
import pytest

from keras_bot.errors import MisuseError, RunError
from keras_bot.recipe import Recipe
from keras_bot.training import preflight
from keras_bot.training.checkpoints.run_directory import RunDirectory
from keras_bot.training.preflight import open_run_directory, versions

TWO_WORKERS = {"worker": ["localhost:1", "localhost:2"]}


@pytest.fixture(autouse=True)
def sent(monkeypatch):
    """The arguments of each call of `connect_workers`, which does nothing else here."""
    calls = []
    monkeypatch.setattr(preflight, "connect_workers", lambda cluster, facts: calls.append((cluster, facts)))
    return calls


def as_worker(monkeypatch, index):
    config = {"cluster": TWO_WORKERS, "task": {"type": "worker", "index": index}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))


def open_run(recipe, path, resume=False, overwrite=False):
    return open_run_directory(recipe, path, resume=resume, overwrite=overwrite)


def test_a_single_worker_has_no_cluster_and_writes_the_directory(tmp_path, sent):
    cluster, directory = open_run(Recipe(), tmp_path / "run")
    assert cluster is None and isinstance(directory, RunDirectory) and directory.path == tmp_path / "run"
    assert [cluster for cluster, _ in sent] == [None]
    assert not (tmp_path / "run").exists()  # nothing is written yet


@pytest.mark.parametrize(("index", "writes"), [(0, True), (1, False)])
def test_only_the_chief_opens_the_directory(index, writes, tmp_path, sent, monkeypatch):
    as_worker(monkeypatch, index)
    cluster, directory = open_run(Recipe(), tmp_path / "run")
    assert cluster.index == index and cluster.workers == 2 and sent[0][0] is cluster
    assert (directory is not None) is writes


def test_tf_config_is_ignored_on_one_device(tmp_path, monkeypatch, sent):
    as_worker(monkeypatch, 1)
    cluster, directory = open_run(Recipe(strategy="one_device"), tmp_path / "run")
    assert cluster is None and directory is not None and sent[0][0] is None


def test_workers_compare_the_recipe_the_versions_and_resume(tmp_path, sent):
    recipe = Recipe(epochs=7, decay_epochs=(3,), teacher="models//teacher/", seed=5)
    open_run(recipe, tmp_path / "run")
    facts = sent[0][1]
    own = {
        *("data_dir", "max_corrupt", "strategy", "ram_budget", "jit_compile", "keep_checkpoints", "teacher_cache"),
    }
    assert facts["epochs"] == "7" and facts["decay_epochs"] == "3" and facts["seed"] == "5"
    assert facts["teacher"] == "models/teacher"  # workers may spell a path differently
    assert facts["trouble"] == "" and facts["resume"] == "false"
    assert set(facts) == (set(recipe.as_text()) - own) | {"resume", "trouble"} | set(versions())
    assert "checkpoint_every" in facts  # saving within an epoch involves all workers
    assert {name: facts[name] for name in versions()} == versions()


@pytest.mark.parametrize(("resume", "text"), [(True, "true"), (False, "false")])
def test_resume_is_compared_and_reaches_the_directory(resume, text, tmp_path, sent):
    path = tmp_path / "run"
    (path / "checkpoints").mkdir(parents=True)
    (path / "checkpoints" / "step-00000001.npz").touch()
    (path / "run.flags").write_text("\n".join(Recipe().flag_lines()))
    if resume:
        assert open_run(Recipe(), path, resume=True)[1].path == path
    else:
        with pytest.raises(MisuseError, match="already contains a run of this recipe"):
            open_run(Recipe(), path)
        assert open_run(Recipe(), path, overwrite=True)[1].path == path
    assert {facts["resume"] for _, facts in sent} == {text}


def test_the_chiefs_problem_is_sent_to_the_workers_before_it_is_raised(tmp_path, sent):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(MisuseError) as raised:
        open_run(Recipe(), tmp_path)
    assert sent[0][1]["trouble"] == str(raised.value) != ""


@pytest.mark.parametrize("kind", [MisuseError, RunError, OSError])
def test_each_kind_of_problem_is_sent(kind, tmp_path, sent, monkeypatch):
    def fail(*_, **__):
        raise kind("no disk")

    monkeypatch.setattr(preflight, "RunDirectory", fail)
    with pytest.raises(kind, match=r"^no disk$"):
        open_run(Recipe(), tmp_path / "run")
    assert sent[0][1]["trouble"] == "no disk"


def test_the_chiefs_own_problem_wins_over_that_of_the_workers(tmp_path, monkeypatch):
    def differ(cluster, facts):
        raise MisuseError("workers differ")

    monkeypatch.setattr(preflight, "connect_workers", differ)
    with pytest.raises(MisuseError, match=r"^workers differ$"):
        open_run(Recipe(), tmp_path / "run")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(MisuseError, match="files that are not part of a keras_bot run"):
        open_run(Recipe(), tmp_path)


@pytest.mark.parametrize("name", ["teacher", "init_from"])
@pytest.mark.parametrize("inside", ["", "model.keras"])
def test_a_network_in_the_run_directory_cannot_be_an_input(name, inside, tmp_path):
    folder = tmp_path / "run"
    recipe = Recipe(**{name: str(folder / inside)})
    with pytest.raises(MisuseError) as raised:
        open_run(recipe, folder)
    assert str(raised.value) == f"--{name}={folder / inside} is inside the run directory {folder}. Move one of them."


def test_a_link_into_the_run_directory_is_found(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(MisuseError, match="inside the run directory"):
        open_run(Recipe(teacher=str(tmp_path / "link" / "model.keras")), folder)


@pytest.mark.parametrize("place", ["other/model.keras", "run2", "", "run/seed0/model.keras"])
def test_a_network_elsewhere_is_accepted(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = Recipe(teacher=place and str(tmp_path / place))
    assert open_run(recipe, tmp_path / "run")[1].path == tmp_path / "run"


def test_no_teacher_is_not_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    assert open_run(Recipe(), tmp_path / "run")[1].path == tmp_path / "run"


def test_the_versions_name_the_backend():
    backend = keras.backend.backend()
    found = versions()
    assert set(found) == {"keras_bot", "keras", "tensorflow", backend, "backend"}
    assert found.pop("backend") == backend
    assert found == {name: importlib.import_module(name).__version__ for name in found}
