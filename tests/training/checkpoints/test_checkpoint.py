"""Checkpoints are restored exactly; a kill, a full disk or a flipped bit never loses the newest valid one."""

import errno
import gc
import os
import pathlib
import random
import shutil
import subprocess
import sys
import zipfile

import keras
import ml_dtypes
import numpy as np
import pytest
from processes import file_size_limit, run_python

from keras_bot import atomic_files
from keras_bot.atomic_files import replacing
from keras_bot.errors import RunError
from keras_bot.training.checkpoints import checkpoint
from keras_bot.training.checkpoints.checkpoint import Checkpoints


def arrays(folder, keep=2, **values):
    """Returns Checkpoints with arrays instead of variables."""
    return Checkpoints(folder, values, keep=keep)


def small(folder, **options):
    return arrays(folder, weight=np.arange(6, dtype=np.float32).reshape(2, 3), steps=np.int64(7), **options)


def newest(checkpoints):
    """Reads and checks the newest checkpoint; returns its progress, {} without one."""
    state = checkpoints.read_newest()
    if state is None:
        return {}
    checkpoints.check(state.arrays)
    return state.progress


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def flip(path, position=-100, bits=1):
    data = bytearray(path.read_bytes())
    data[position] ^= bits
    path.write_bytes(data)


# Saving and reading


def test_keras_variables_are_restored_exactly(tmp_path):
    draw = np.random.default_rng(0)
    values = {
        "model/0/kernel": draw.normal(size=(3, 3, 2, 4)).astype("float32"),
        "half": draw.normal(size=(5,)).astype("float16"),
        "brain": draw.normal(size=(4, 3)).astype(ml_dtypes.bfloat16),
        "one brain": np.array(1.7, ml_dtypes.bfloat16),
        "iteration": np.array(2**40 + 1, "int64"),
        "scale": np.array(32768.0, "float32"),
        "seed": np.array([1, 2**32 - 1], "uint32"),
        "flag": np.array(True),
        "none": np.zeros((0, 3), "float32"),
    }
    variables = {name: keras.Variable(value, dtype=value.dtype.name) for name, value in values.items()}
    checkpoints = Checkpoints(tmp_path / "deep" / "checkpoints", variables)
    progress = {"steps": 12, "epochs": 1, "history": [{"loss": 0.1 + 0.2}], "corrupt_images": ["ü.jpg"]}
    assert checkpoints.read_newest() is None
    assert checkpoints.save(progress).name == "step-00000012.npz"
    state = checkpoints.read_newest()
    assert state.progress == progress and list(state.arrays) == list(values)
    for name, array in state.arrays.items():
        assert array.dtype == values[name].dtype and array.shape == values[name].shape, name
        assert array.tobytes() == values[name].tobytes(), name


def test_numpy_can_open_the_file(tmp_path):
    with np.load(small(tmp_path).save({"steps": 3})) as stored:
        np.testing.assert_array_equal(stored["weight"], np.arange(6).reshape(2, 3))
        assert stored["steps"].dtype == np.int64 and stored["steps"].shape == ()


def test_the_same_state_gives_the_same_file(tmp_path):
    one, two = (small(tmp_path / name).save({"steps": 3}).read_bytes() for name in ("one", "two"))
    assert one == two
    with zipfile.ZipFile(next((tmp_path / "one").iterdir())) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_passed_arrays_are_saved_instead_of_the_variables(tmp_path):
    checkpoints = arrays(tmp_path, a=np.zeros(3))
    checkpoints.save({"steps": 1}, {"a": np.ones(3)})
    np.testing.assert_array_equal(checkpoints.read_newest().arrays["a"], np.ones(3))


def test_arrays_of_any_memory_layout_are_restored(tmp_path):
    value = np.arange(24, dtype="float32").reshape(2, 3, 4)
    checkpoints = arrays(tmp_path, a=value.transpose(2, 0, 1), b=value[:, ::2], c=np.asfortranarray(value[0]))
    before = checkpoints.collect()
    checkpoints.save({"steps": 1})
    after = checkpoints.read_newest().arrays
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_non_finite_values_are_not_saved(bad, dtype, tmp_path):
    values = np.array([1, bad, 1], dtype)
    checkpoints = arrays(tmp_path / "new", good=np.ones(3), bad=values)
    with pytest.raises(RunError, match="bad is not finite after step 5"):
        checkpoints.save({"steps": 5})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "other", [{"a": np.ones(4)}, {"b": np.ones(3)}, {"a": np.ones(3), "b": np.ones(1)}, {"a": np.ones((1, 3))}, {}]
)
def test_a_checkpoint_of_another_network_is_rejected(other, tmp_path):
    arrays(tmp_path, **other).save({"steps": 1})
    checkpoints = arrays(tmp_path, a=np.zeros(3))
    with pytest.raises(RunError, match=r"is from another network, number of classes or version: [ab] has shape"):
        newest(checkpoints)


# Number of checkpoints


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_the_newest_are_kept(keep, tmp_path):
    checkpoints = small(tmp_path, keep=keep)
    for count, steps in enumerate((8, 9, 10, 11, 99_999_999, 100_000_000), 1):
        checkpoints.save({"steps": steps})
        assert len(checkpoints.files()) == min(count, keep)
    assert checkpoints.files()[-1].name == "step-100000000.npz"
    assert checkpoints.read_newest().progress == {"steps": 100_000_000}
    assert checkpoints.files() == sorted(checkpoints.files(), key=lambda path: int(path.stem[5:]))


def test_the_old_one_is_deleted_only_after_the_new_one_is_synced(tmp_path, monkeypatch):
    calls = []

    def record(module, name):
        original = getattr(module, name)

        def call(*args, **options):
            calls.append(name)
            return original(*args, **options)

        monkeypatch.setattr(module, name, call)

    checkpoints = small(tmp_path, keep=1)
    checkpoints.save({"steps": 1})
    for module, name in ((os, "fsync"), (os, "replace"), (os, "unlink"), (pathlib.Path, "unlink")):
        record(module, name)
    checkpoints.save({"steps": 2})
    assert [name for index, name in enumerate(calls) if name != "unlink" or "unlink" not in calls[:index]] == [
        *("fsync", "replace", "fsync", "unlink")
    ]
    assert names(tmp_path) == ["step-00000002.npz"]


def test_partial_files_are_removed_and_other_files_kept(tmp_path):
    for name in (".step-00000001.npz.99.part", "notes.txt", "step-5.npz", "step-00000001.npz.damaged"):
        (tmp_path / name).write_bytes(b"x")
    small(tmp_path).save({"steps": 2})
    assert names(tmp_path) == ["notes.txt", "step-00000001.npz.damaged", "step-00000002.npz", "step-5.npz"]


# Damage


def test_any_flipped_bit_is_detected(tmp_path):
    checkpoints = arrays(tmp_path, a=np.float32(1))
    path = checkpoints.save({"steps": 1})
    good = path.read_bytes()
    draw = random.Random(0)
    changes = [(position, 1 << draw.randrange(8)) for position in range(len(good))]
    changes += [(position, 32) for position in range(len(good) - 64, len(good))]  # the case of the checksum's letters
    changes += [(draw.randrange(len(good)), draw.randrange(1, 256)) for _ in range(200)]
    for position, bits in changes:
        flip(path, position, bits)
        with pytest.raises(RunError, match=r"damaged .*: step-00000001.npz\. Use --overwrite to start over"):
            checkpoints.read_newest()
        assert names(tmp_path) == ["step-00000001.npz.damaged"]
        (tmp_path / "step-00000001.npz.damaged").unlink()
        path.write_bytes(good)
    assert checkpoints.read_newest().progress == {"steps": 1}


def test_any_truncation_is_detected(tmp_path):
    checkpoints = arrays(tmp_path, a=np.float32(1))
    path = checkpoints.save({"steps": 1})
    good = path.read_bytes()
    for data in (*(good[:length] for length in range(len(good))), good + b"0", good + good, b"0" + good):
        path.write_bytes(data)
        with pytest.raises(RunError, match="damaged"):
            checkpoints.read_newest()
        (tmp_path / "step-00000001.npz.damaged").unlink()


def test_a_damaged_checkpoint_is_reported_and_renamed_and_an_older_one_used(tmp_path, capsys):
    checkpoints = small(tmp_path, keep=3)
    paths = [checkpoints.save({"steps": steps}) for steps in (1, 2, 3)]
    flip(paths[2])
    assert newest(checkpoints) == {"steps": 2}
    assert capsys.readouterr().err == (
        f"keras-bot: the checkpoint {paths[2]} is damaged (checksum mismatch); resuming from {paths[1]}.\n"
    )
    assert names(tmp_path) == ["step-00000001.npz", "step-00000002.npz", "step-00000003.npz.damaged"]
    flip(checkpoints.save({"steps": 3}))
    assert newest(checkpoints) == {"steps": 2}
    assert {"step-00000003.npz.damaged", "step-00000003.npz.damaged.damaged"} < set(names(tmp_path))
    capsys.readouterr()
    assert newest(checkpoints) == {"steps": 2} and not capsys.readouterr().err
    for steps in (3, 4, 5):
        checkpoints.save({"steps": steps})
    assert [path.name for path in checkpoints.files()] == [f"step-0000000{i}.npz" for i in (3, 4, 5)]
    assert sum(name.endswith(".damaged") for name in names(tmp_path)) == 2


def test_a_damaged_checkpoint_that_cannot_be_renamed_is_skipped_and_not_counted(tmp_path, monkeypatch, capsys):
    checkpoints = small(tmp_path)
    good, bad = (checkpoints.save({"steps": steps}) for steps in (1, 2))
    flip(bad)
    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "rename", raising(errno.EROFS))
        assert newest(checkpoints) == {"steps": 1} and "damaged" in capsys.readouterr().err
    assert checkpoints.files() == [good, bad]
    checkpoints.save({"steps": 3})
    assert [path.name for path in checkpoints.files()] == [f"step-0000000{i}.npz" for i in (1, 2, 3)]
    checkpoints.save({"steps": 2})  # replaces the damaged one, so it counts again
    checkpoints.save({"steps": 4})
    assert [path.name for path in checkpoints.files()] == [f"step-0000000{i}.npz" for i in (3, 4)]


def test_a_run_without_valid_checkpoints_does_not_start_over(tmp_path, capsys):
    checkpoints = small(tmp_path)
    for path in [checkpoints.save({"steps": steps}) for steps in (1, 2)]:
        flip(path)
    with pytest.raises(RunError, match=r"damaged .*: step-00000002.npz, step-00000001.npz\. .*--overwrite"):
        newest(checkpoints)
    assert names(tmp_path) == ["step-00000001.npz.damaged", "step-00000002.npz.damaged"]
    with pytest.raises(RunError, match=r"damaged .*: step-00000001.npz.damaged, .*--overwrite"):
        newest(checkpoints)  # does not return None
    assert not capsys.readouterr().err


def test_checkpoints_of_another_version_are_rejected(tmp_path):
    (tmp_path / "epoch-00001.npz").write_bytes(b"x")
    checkpoints = small(tmp_path)
    with pytest.raises(RunError, match=r"written by another version of keras_bot: epoch-00001.npz\. .*--overwrite"):
        newest(checkpoints)
    path = checkpoints.save({"steps": 1})
    assert newest(checkpoints) == {"steps": 1}
    path.write_bytes(b"y" * 9 + checkpoint._checksum(b"y" * 9 + b"0" * 64))  # valid checksum, but not a checkpoint
    with pytest.raises(RunError, match=r"step-00000001.npz was written by another version of keras_bot"):
        newest(checkpoints)
    assert path.exists()


def test_an_unreadable_checkpoint_is_reported_and_kept(tmp_path, monkeypatch):
    checkpoints = small(tmp_path)
    paths = [checkpoints.save({"steps": steps}) for steps in (1, 2)]
    monkeypatch.setattr(pathlib.Path, "read_bytes", raising(errno.EACCES))
    with pytest.raises(RunError, match=r"Cannot read .*step-00000002.npz: Permission denied"):
        newest(checkpoints)
    assert checkpoints.files() == paths


# Failing to write


def raising(number, when=lambda *args: True, otherwise=None):
    """Returns a function that raises OSError if `when` is true of its arguments, and else calls `otherwise`."""

    def call(*args, **options):
        if when(*args):
            raise OSError(number, os.strerror(number), str(args[0]))
        return otherwise(*args, **options)

    return call


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EFBIG, errno.EDQUOT])
@pytest.mark.parametrize("name", ["open", "fsync", "replace"])
@pytest.mark.parametrize("first", [True, False])
def test_a_failed_write_is_reported_and_keeps_the_previous_one(first, name, number, tmp_path, monkeypatch):
    checkpoints = small(tmp_path)
    good = None if first else checkpoints.save({"steps": 1})
    with monkeypatch.context() as patch:
        if name == "open":
            patch.setattr(atomic_files, "open", raising(number), raising=False)
        else:
            patch.setattr(os, name, raising(number))
        with pytest.raises(RunError) as raised:
            checkpoints.save({"steps": 2})
    state = "There is no other checkpoint." if first else f"The newest valid checkpoint is {good}."
    written = tmp_path / "step-00000002.npz"
    assert str(raised.value) == f"Cannot write the checkpoint {written}: {os.strerror(number)}. {state}"
    assert checkpoints.files() == ([] if first else [good]) and len(names(tmp_path)) == (not first)
    assert newest(checkpoints) == ({} if first else {"steps": 1})
    checkpoints.save({"steps": 2})
    assert newest(checkpoints) == {"steps": 2}


def test_a_folder_that_cannot_be_synced_keeps_the_old_one(tmp_path, monkeypatch):
    checkpoints = small(tmp_path, keep=1)
    good = checkpoints.save({"steps": 1})
    is_folder = lambda descriptor: os.path.isdir(f"/proc/self/fd/{descriptor}")  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", raising(errno.EIO, is_folder, os.fsync))
        with pytest.raises(RunError, match=f"Input/output error. The newest valid checkpoint is {good}"):
            checkpoints.save({"steps": 2})
        assert good.exists()
        patch.setattr(os, "fsync", raising(errno.EINVAL, is_folder, lambda descriptor: None))
        checkpoints.save({"steps": 3})  # a file system that does not support it
    assert names(tmp_path) == ["step-00000003.npz"]


def test_the_reported_valid_checkpoint_is_valid(tmp_path, monkeypatch):
    checkpoints = small(tmp_path)
    good, bad = (checkpoints.save({"steps": steps}) for steps in (1, 2))
    flip(bad)
    monkeypatch.setattr(os, "replace", raising(errno.EIO))
    with pytest.raises(RunError, match=f"The newest valid checkpoint is {good}"):
        checkpoints.save({"steps": 3})
    flip(good)
    with pytest.raises(RunError, match="No other checkpoint is valid"):
        checkpoints.save({"steps": 3})


def test_an_undeletable_old_checkpoint_is_reported(tmp_path, monkeypatch):
    checkpoints = small(tmp_path, keep=1)
    old = checkpoints.save({"steps": 1})
    monkeypatch.setattr(pathlib.Path, "unlink", raising(errno.EPERM))
    with pytest.raises(RunError, match=f"Cannot delete the old checkpoint {old}: Operation not permitted"):
        checkpoints.save({"steps": 2})
    assert checkpoints.read_newest().progress == {"steps": 2}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write in a read-only folder")
def test_a_read_only_folder(tmp_path):
    checkpoints = small(tmp_path)
    checkpoints.save({"steps": 1})
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(RunError, match=r"Permission denied. The newest valid checkpoint is"):
            checkpoints.save({"steps": 2})
        assert newest(checkpoints) == {"steps": 1}
    finally:
        tmp_path.chmod(0o700)


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 1 MiB, and a function that mounts it with options."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(options, kind="tmpfs"):
        return subprocess.run(["mount", "-t", kind, "-o", options, kind, disk], capture_output=True, text=True)

    done = mount("size=1m") if shutil.which("mount") else None
    if done is None or done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip() if done else 'no mount'}")
    try:
        yield disk, mount
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_full_disk(tiny_disk, capsys):
    disk, mount = tiny_disk
    checkpoints = arrays(disk / "checkpoints", a=np.zeros(100_000, "float32"))
    first, second = (checkpoints.save({"steps": steps}) for steps in (1, 2))
    partial = disk / "checkpoints" / ".step-00000003.npz.1.part"
    partial.write_bytes(b"x" * 100_000)  # from a killed process; removed by the next save
    for _ in range(2):
        with pytest.raises(RunError, match=f"No space left on device. The newest valid checkpoint is {second}"):
            checkpoints.save({"steps": 3})
        gc.collect()
        assert names(disk / "checkpoints") == [first.name, second.name]
    assert newest(checkpoints) == {"steps": 2}
    first.unlink()
    checkpoints.save({"steps": 3})
    assert newest(checkpoints) == {"steps": 3} and capsys.readouterr() == ("", "")
    assert mount("remount,ro").returncode == 0
    with pytest.raises(RunError, match=r"Read-only file system. The newest valid checkpoint is .*step-00000003.npz"):
        checkpoints.save({"steps": 4})
    assert newest(checkpoints) == {"steps": 3}


def test_replacing_raises_the_first_error_and_keeps_the_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyError, match="mine"), replacing(path) as file:
        file.write(b"new")
        os.close(file.fileno())  # so that closing fails too
        raise KeyError("mine")
    assert path.read_text() == "old" and names(tmp_path) == ["file"]
    with replacing(path) as file:
        file.write(b"new")
    assert path.read_text() == "new" and names(tmp_path) == ["file"]


@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_a_file_size_limit_is_reported_and_leaves_no_open_file(size, tmp_path, monkeypatch):
    checkpoints = arrays(tmp_path, a=np.zeros(1000), b=np.zeros(size))
    checkpoints.save({"steps": 1})
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    with file_size_limit(5000), pytest.raises(RunError) as raised:
        checkpoints.save({"steps": 2})
    gc.collect()
    assert str(raised.value) == (
        f"Cannot write the checkpoint {tmp_path}/step-00000002.npz: File too large. "
        f"The newest valid checkpoint is {tmp_path}/step-00000001.npz."
    )
    assert names(tmp_path) == ["step-00000001.npz"] and not unraisable


KILLED = """
import os, pathlib, random, signal, sys, time
import numpy as np
from keras_bot.training.checkpoints.checkpoint import Checkpoints

folder = pathlib.Path(sys.argv[1])
def checkpoints(values, keep=2):
    return Checkpoints(folder, values, keep=keep)

draw = random.Random(0)
def save_forever(pipe):
    found = checkpoints({}).read_newest()
    steps = found.progress["steps"] if found else 0
    while True:
        steps += 1
        values = {"a": np.full(300_000, steps), "b": np.full(7, steps)}
        checkpoints(values, keep=1 + steps % 3).save({"steps": steps})
        os.write(pipe, steps.to_bytes(8, "big"))

inside = 0
for _ in range(25):
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            save_forever(write)
        finally:
            os._exit(1)
    os.close(write)
    last = os.read(read, 8)
    time.sleep(draw.uniform(0, 0.05))
    os.kill(pid, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1]), "it ended before the kill"
    while more := os.read(read, 8):
        last = more
    os.close(read)
    inside += any(folder.glob(".*.part"))
    state = checkpoints({}).read_newest()
    progress, arrays = state.progress, state.arrays
    assert progress["steps"] - int.from_bytes(last, "big") in (0, 1), (progress, last)
    assert (arrays["a"] == progress["steps"]).all() and (arrays["b"] == progress["steps"]).all()
    assert checkpoints({}).files()[-1].name == f"step-{progress['steps']:08d}.npz"
assert not list(folder.glob("*.damaged"))
print(inside, progress["steps"])
"""


@pytest.mark.soak
def test_a_kill_at_any_moment_keeps_the_newest_checkpoint(tmp_path):
    inside, _ = map(int, run_python(KILLED, tmp_path).stdout.split())
    assert inside > 0, "no kill happened during a save"
