"""The commands print to streams of any encoding, and to closed ones."""

import os
import subprocess
import sys
import zipfile

import pytest
from processes import python_command

from keras_bot import models
from keras_bot.ablation.rows import Row
from keras_bot.ablation.validate import check_recipes
from keras_bot.cli.commands.import_weights import _write
from keras_bot.cli.main import COMMANDS
from keras_bot.errors import RunError
from keras_bot.recipe import Recipe

LOCALES = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


HELP = """import sys
from keras_bot.cli.main import COMMANDS, main
sys.exit(any(main([*command, "--help"]) for command in ([], *([name] for name in COMMANDS))))"""


def run_program(command, **environment):
    inherited = {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, capture_output=True, env={**os.environ, **inherited, **environment})


def run(*arguments, redirect="", **environment):
    """Runs a command in a shell, so that its streams can be closed."""
    command = ["sh", "-c", f'exec "$0" -m keras_bot "$@" {redirect}', sys.executable, *arguments]
    return run_program(command, **environment)


@pytest.mark.parametrize("locale", LOCALES)
def test_help_of_every_command_is_printed_in_any_encoding(locale):
    done = run_program(python_command(HELP), **LOCALES[locale])
    assert done.returncode == 0 and done.stderr == b""
    text = done.stdout.decode("latin-1" if locale == "latin-1" else "ascii")
    assert text.count("usage: keras-bot") == 1 + len(COMMANDS)


@pytest.mark.parametrize("locale", LOCALES)
def test_an_error_with_any_name_is_one_line(locale):
    done = run("inspect", "--n\xf6nsense\u2026", "--flagfile=x\n\u732b", **LOCALES[locale])
    assert done.returncode == 2 and done.stderr.startswith(b"keras-bot: ") and done.stderr.count(b"\n") == 1


@pytest.mark.thorough
def test_a_name_that_is_not_utf8_is_printed(tmp_path):
    done = run("launch", "--workers=1", "--", "inspect", os.fsdecode(b"gone\xff"), PYTHONIOENCODING="utf-8")
    assert done.returncode == 2 and b"gone\\udcff" in done.stderr and b"Traceback" not in done.stderr


@pytest.mark.parametrize(("arguments", "code"), [(["nonsense"], 2), (["train", "--help"], 0), (["--version"], 0)])
@pytest.mark.parametrize("redirect", [">&-", ">&- 2>&-", "2>&-"])
def test_closed_streams_change_no_exit_code(arguments, code, redirect):
    done = run(*arguments, redirect=redirect)
    assert done.returncode == code and b"Traceback" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_under_stdout_is_one_line():
    done = run("nonsense", redirect=">/dev/full")
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and b"Unknown command" in done.stderr


def test_output_of_a_process_in_another_encoding_is_read():
    program = "import sys; sys.stderr.buffer.write(b'caf\\xe9 burnt down\\n'); sys.exit(3)"
    with pytest.raises(RunError, match="caf� burnt down"):
        check_recipes([Row("a", "a.flags", Recipe())], (sys.executable, "-c", program))


def test_the_card_of_imported_weights_takes_any_name(tmp_path):
    _write(
        models.create_model("cifar_resnet8_a", num_classes=2, width=0.1),
        {"file": "half\udcff é"},
        tmp_path / "net.keras",
    )
    with zipfile.ZipFile(tmp_path / "net.keras") as archive:
        assert archive.read("model.json") == (tmp_path / "net.json").read_bytes()
    assert '"half\\udcff é"' in (tmp_path / "net.json").read_text(encoding="utf-8")
