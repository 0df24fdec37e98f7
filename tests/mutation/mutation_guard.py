"""pytest plugin of the mutation check: asserts that the planted copy is tested, and records failures as JSON lines.

Environment variables: KERAS_BOT_MUTANT is the copy's folder, KERAS_BOT_MUTANT_MODULES the modules that must import,
and KERAS_BOT_MUTANT_LOG the file to append to. With pytest-xdist it runs in every process; only the main one writes.
"""

import importlib
import json
import os
import pathlib

import pytest


def pytest_configure(config):
    """Ends the run with an error if keras_bot is not the copy or a module with a fault cannot be imported."""
    import keras_bot

    root = pathlib.Path(os.environ["KERAS_BOT_MUTANT"])
    if not pathlib.Path(keras_bot.__file__).resolve().is_relative_to(root.resolve()):
        raise pytest.UsageError(f"keras_bot is {keras_bot.__file__}, not the copy in {root}.")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Recorder(pathlib.Path(os.environ["KERAS_BOT_MUTANT_LOG"])))


def pytest_collection_modifyitems():
    """Imports the modules after `conftest.py`, which must come before TensorFlow starts."""
    for module in os.environ["KERAS_BOT_MUTANT_MODULES"].split():
        try:
            importlib.import_module(module)
        except Exception as error:
            raise pytest.UsageError(f"{module} cannot be imported: {error!r}") from error


class _Recorder:
    def __init__(self, path):
        self._path = path

    def pytest_collectreport(self, report):
        if report.failed:
            self._write("collect", report.nodeid, report)

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self._write(report.when, report.nodeid, report)

    def _write(self, when, test, report):
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = [crash.message] if crash else report.longreprtext.strip().splitlines()[-1:]
        with self._path.open("a", encoding="utf-8") as file:
            file.write(
                json.dumps({"when": when, "test": test, "reason": " ".join("".join(reason).split())[:300]}) + "\n"
            )
