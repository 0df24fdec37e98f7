"""Imports go down only; the core is free of TensorFlow; flags stay in cli; importing does nothing."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "keras_bot"
FILES = sorted(PACKAGE.rglob("*.py"))
LAYERS = [  # each may import from those after it
    {"cli"},
    {"bench"},
    {"report"},
    {"transfer"},
    {"export"},
    {"training"},
    {"interop"},
    {"tricks", "models", "data"},
    {"recipe"},
    {"durable", "figures", "paths"},
    {"errors"},
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path):
    """Every module that a file imports, at its top or in its functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            if node.module == "keras_bot":
                yield from (f"keras_bot.{alias.name}" for alias in node.names)


def test_every_part_has_a_level():
    parts = {part_of(path) for path in FILES} - {"__init__", "__main__"}
    assert parts == set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    mine = part_of(path)
    if mine in ("__init__", "__main__"):
        return
    for module in imports_of(path):
        if not module.startswith("keras_bot.") or module == "keras_bot.__version__":
            continue
        other = module.split(".")[1]
        assert other == mine or LEVEL[other] > LEVEL[mine], f"{path} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_a_part_may_import(path):
    roots = {module.split(".")[0] for module in imports_of(path)}
    mine = part_of(path)
    if mine in ("models", "tricks", "recipe", "errors", "durable"):
        assert not roots & {"tensorflow", "tensorflow_datasets", "jax", "torch", "tf_keras"}
    if mine == "interop":  # reads PyTorch's files with PyTorch
        assert not roots & {"tensorflow", "tensorflow_datasets", "jax", "tf_keras"}
    if mine != "cli":
        assert "absl" not in roots
    if mine in ("recipe", "errors", "durable"):
        assert roots <= set(sys.stdlib_module_names) | {"keras_bot"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_runs_at_import(path):
    if path.name == "__main__.py":
        return
    quiet = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for node in ast.parse(path.read_text()).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert docstring or isinstance(node, quiet), f"{path}:{node.lineno} runs at import"


def test_importing_keras_bot_is_quick_and_takes_no_keras():
    code = (
        "import time, sys; began = time.perf_counter(); import keras_bot; took = time.perf_counter() - began;"
        "assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules), 'too much imported';"
        "assert took < 0.3, took"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_the_public_names_are_there():
    import keras_bot

    for name in keras_bot.__all__:
        assert getattr(keras_bot, name) is not None
