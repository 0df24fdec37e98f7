"""`keras-bot launch`: the commands it accepts and the workers it starts (supervision: tests/cli/test_supervisor.py)."""

import json
import os
import sys

import pytest
from processes import KERAS_BOT, run_process

from keras_bot.cli.commands import launch
from keras_bot.cli.main import main


def test_tf_config_lists_all_workers():
    environment = launch.worker_environment(["127.0.0.1:1", "127.0.0.1:2"], 1)
    config = json.loads(environment["TF_CONFIG"])
    assert config == {"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}, "task": {"type": "worker", "index": 1}}
    assert environment["PYTHONUNBUFFERED"] == "1"


def test_ports_are_free_and_differ():
    ports = launch.free_ports(20)
    assert len(set(ports)) == 20 and all(1024 < port < 65536 for port in ports)


def test_a_command_runs_in_each_worker_from_any_directory(tmp_path):
    environment = {"PYTHONPATH": str(launch.pathlib.Path(launch.__file__).parents[3])}
    command = [*KERAS_BOT, "launch", "--workers=3", "--", "models", "--help"]
    ran = run_process(command, cwd=tmp_path, env=environment, timeout=30)
    assert ran.stderr == ""
    for worker in range(3):
        assert f"[worker {worker}] usage: keras-bot models" in ran.stdout


def test_misuse_in_the_workers_is_misuse(tmp_path):
    command = [*KERAS_BOT, "launch", "--", "train", "--epoch=1"]
    ran = run_process(command, check=False, cwd=tmp_path, env={"PYTHONPATH": os.pathsep.join(sys.path)}, timeout=30)
    assert ran.returncode == 2 and "keras-bot: Unknown flag --epoch. Did you mean --epochs?" in ran.stderr


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--workers=0", "--", "train"], "--workers must be at least 1, received 0"),
        (["--workers=-2", "--", "train"], "received -2"),
        (["--workers=two", "--", "train"], "workers"),
        (["--grace=-1", "--", "train"], "--grace must be at least 0"),
        (["--workers=2"], "The command after -- is missing."),
        (["--workers=2", "train", "--dataset=digits"], "Put -- before train."),
        (["--workers=2", "--"], "The command after -- is missing."),
        (["--", "launch", "--", "train"], "launch cannot run launch"),
        (["--", "trian"], "Unknown command 'trian'. Did you mean train?"),
        (["--", "train", "--flagfile=nowhere.flags"], "Cannot read the flagfile nowhere.flags"),
        (["--wokers=2", "--", "train"], "Did you mean --workers?"),
    ],
)
def test_misuse_is_reported_in_one_line_with_exit_code_2(argv, message, capsys):
    assert main(["launch", *argv]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]
