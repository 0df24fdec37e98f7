"""README and guide: every Python block runs, every command parses, and those of `PAGE_RUNS` run as they are pasted."""

import re
import subprocess
import sys

import pytest
import setups
from guide import LANGUAGES, PAGES, ROOT, Block, blocks, commands
from processes import run_command

from keras_bot.cli.flags import Flags
from keras_bot.cli.main import COMMANDS

BLOCKS = [block for page in PAGES for block in blocks(page)]
WITH_PYTHON = sorted({block.page for block in BLOCKS if block.language == "python"})
COMMAND_BLOCKS = [block for block in BLOCKS if block.language == "bash" and commands(block)]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_has_a_language_that_is_tested(block):
    assert block.language in LANGUAGES


@pytest.mark.parametrize("block", COMMAND_BLOCKS, ids=str)
def test_every_command_parses(block, monkeypatch):
    monkeypatch.chdir(ROOT)
    for command, *arguments in commands(block):
        assert command in COMMANDS or command.startswith("--"), command
        if command == "launch":
            split = arguments.index("--")
            check_command(arguments[split + 1], arguments[split + 2 :])
            arguments = arguments[:split]
        if command in COMMANDS:
            check_command(command, arguments)


def check_command(command: str, arguments: list[str]):
    """Asserts that a command takes these arguments, and that the recipe is valid."""
    arguments = [argument for argument in arguments if "flagfile=my" not in argument]
    run_command(command, *arguments, "--help")
    if command in ("train", "finetune"):
        flags = Flags(command, "", recipe=True)
        own = ("run_dir", "resume", "overwrite", "dry_run")
        flags.parse([each for each in arguments if each.partition("=")[0].lstrip("-") not in own])
        flags.recipe()


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.thorough] * (page != "README.md")) for page in WITH_PYTHON]
)
def test_the_python_blocks_of_a_page_run_in_order(page, tmp_path):
    """In one process per page, in a fresh directory with what `setups.prepare` puts there."""
    setups.prepare(page, tmp_path, "python")
    program = "\n".join(numbered(block) for block in blocks(page) if block.language == "python")
    for old, new in setups.REPLACED.get(page, {}).items():
        assert old in program, f"{page} no longer has {old!r}"
        program = program.replace(old, new)
    program += setups.CHECKED.get(page, "")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]


def numbered(block: Block) -> str:
    """Returns a block's code with its place, so that a traceback leads to the page."""
    return f"print({str(block)!r}, flush=True)\n{block.text}"


@pytest.mark.thorough
@pytest.mark.parametrize("page", sorted(setups.PAGE_RUNS))
def test_the_commands_of_a_page_run_as_they_are_pasted(page, tmp_path):
    """All bash blocks of the page in one shell, in a fresh directory with what `setups.prepare` puts there."""
    setups.prepare(page, tmp_path, "bash")
    script = "\n".join(block.text for block in blocks(page) if block.language in setups.PAGE_RUNS[page])
    done = setups.run_script(page, script, tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize("page", PAGES)
def test_links_and_flagfiles_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http", "#", "mailto:")):
            assert ((ROOT / page).parent / target.partition("#")[0]).exists(), target
    for name in re.findall(r"(?<![\w/])flags/[\w/]+\.flags", text):
        assert (ROOT / name).exists(), name


def test_flags_that_the_text_names_exist():
    helps = [[command, "--help=all"] for command in COMMANDS]
    helps += [["train", "--help=all", f"--task={task}"] for task in ("detection", "segmentation")]
    helps += [["bench", kind, "--help=all"] for kind in ("model", "data", "refinements", "pipelines")]
    known = {name for words in [*helps, ["data", "convert", "--help=all"]] for name in named(run_command(*words).out)}
    for page in PAGES:
        if "notes/" not in page:
            for name in re.findall(r"`--([a-z]\w+)", (ROOT / page).read_text(encoding="utf-8")):
                assert {name, name.removeprefix("no")} & known or name == "version", f"{page}: --{name}"


def named(text: str) -> list[str]:
    """Returns the names of flags in a help text."""
    return re.findall(r"--(\w+)", text)


LIMITS = {"README.md": 9_000, "BUILD_NOTES.md": 10_000} | {
    page: 12_000 for page in PAGES if page.startswith("docs/") and "notes/" not in page and "changelog" not in page
}


@pytest.mark.parametrize("page", sorted(LIMITS))
def test_a_page_is_short(page):
    assert len((ROOT / page).read_bytes()) <= LIMITS[page]


def test_the_readme_has_a_command_for_each_tier():
    """`.ci/run` runs the first two."""
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if "bin/pytest" in line]
    assert [line.partition("-n 2 --dist loadfile")[2] for line in lines] == ["", " -m thorough", " -m soak"]
