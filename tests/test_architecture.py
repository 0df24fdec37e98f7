"""Imports go down, never in a circle; the core is free of TensorFlow; flags stay in cli; importing does nothing."""

import ast
import pathlib
import re
import sys
from collections.abc import Iterator, Mapping

import pytest
from processes import run_python

PACKAGE = pathlib.Path(__file__).parents[1] / "keras_bot"
FILES = sorted(PACKAGE.rglob("*.py"))
LAYERS = [  # each may import from those after it
    {"cli"},
    {"bench"},
    {"ablation", "report"},
    {"detection", "plan", "segmentation", "trainer"},
    {"tasks"},
    {"export", "training"},
    {"model_files"},
    {"interop"},
    {"tricks", "models", "data"},
    {"bag"},
    {"recipe"},
    {"atomic_files", "figures", "paths", "subprocesses", "surgery"},
    {"moved"},
    {"deprecation", "errors", "tensors"},
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(source: str) -> Iterator[str]:
    """Every module that a file imports: at its top, in its functions, and in strings that hold code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            for module, names in re.findall(r"\bfrom (keras_bot[\w.]*) import ([\w, ]+)", node.value):
                yield from (module, *(f"{module}.{name.strip()}" for name in names.split(",")))
            yield from re.findall(r"\bimport (keras_bot[\w.]*)", node.value)


def module_of(path: pathlib.Path) -> str:
    """The dotted name of a file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def cycles(sources: Mapping[str, str]) -> list[list[str]]:
    """Circles of imports among modules, given with their source: each as the modules in it, sorted."""
    graph = {}
    for module, source in sources.items():
        named = set(imports_of(source)) - {module}
        parts = {name: [other for other in named if other.rpartition(".")[0] == name] for name in named}
        # `from package import part` means the part; the package's own file is meant only by names that are no modules.
        meant = {name for name in named if not parts[name] or any(other not in sources for other in parts[name])}
        graph[module] = meant & sources.keys()

    def reachable(start):
        seen, pending = set(), [start]
        while pending:
            for module in graph[pending.pop()] - seen:
                seen.add(module)
                pending.append(module)
        return seen

    reach = {module: reachable(module) for module in graph}
    circles = {tuple(sorted(other for other in reach[module] if module in reach[other])) for module in graph}
    return [list(circle) for circle in sorted(circles) if circle]


def test_no_files_import_each_other():
    assert cycles({module_of(path): path.read_text(encoding="utf-8") for path in FILES}) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("from keras_bot.b import f", "from keras_bot.a import g"),
        ("from keras_bot import b", "import keras_bot.a"),
        ("def f():\n    from keras_bot.b import g", "from keras_bot.a import f"),
        ("from keras_bot.b import f", "CODE = 'from keras_bot.a import g; g()'"),
    ],
    ids=["plain", "other forms", "late", "in a string"],
)
def test_a_circle_of_imports_is_found(one, other):
    planted = {"keras_bot": "", "keras_bot.a": one, "keras_bot.b": other, "keras_bot.c": "import keras_bot.a"}
    assert cycles(planted) == [["keras_bot.a", "keras_bot.b"]]
    assert cycles({**planted, "keras_bot.b": ""}) == []


def test_every_part_has_a_level():
    parts = {part_of(path) for path in FILES} - {"__init__", "__main__"}
    assert parts == set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    mine = part_of(path)
    if mine in ("__init__", "__main__"):
        return
    for module in imports_of(path.read_text(encoding="utf-8")):
        if not module.startswith("keras_bot.") or module == "keras_bot.__version__":
            continue
        other = module.split(".")[1]
        assert other == mine or LEVEL[other] > LEVEL[mine], f"{path} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_a_part_may_import(path):
    roots = {module.split(".")[0] for module in imports_of(path.read_text(encoding="utf-8"))}
    mine = part_of(path)
    if mine in ("models", "surgery", "tricks", "bag", "recipe", "errors", "atomic_files"):
        assert not roots & {"tensorflow", "tensorflow_datasets", "jax", "torch", "tf_keras"}
    if mine == "interop":  # reads PyTorch's files with PyTorch
        assert not roots & {"tensorflow", "tensorflow_datasets", "jax", "tf_keras"}
    if mine != "cli":
        assert "absl" not in roots
    if mine in ("bag", "deprecation", "recipe", "errors", "atomic_files", "tensors"):
        assert roots <= set(sys.stdlib_module_names) | {"keras_bot"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_runs_at_import(path):
    if path.name == "__main__.py" or path == PACKAGE / "__init__.py":  # which installs the hook for old names
        return
    quiet = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for node in ast.parse(path.read_text()).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not node.orelse
        assert docstring or for_types or isinstance(node, quiet), f"{path}:{node.lineno} runs at import"


def public_functions(node: ast.AST, owner: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every public function of a module and public method of its public classes, by name; not those in functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public_functions(child, f"{owner}{child.name}.")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            if not child.name.startswith("_") or child.name in ("__init__", "__call__"):
                yield f"{owner}{child.name}", child
        elif isinstance(child, ast.If | ast.Try | ast.With):
            yield from public_functions(child, owner)


def unannotated(source: str) -> list[str]:
    """What a public function or method leaves unannotated, such as "Layer.call(inputs)" and "read -> ?"."""
    missing = []
    for name, function in public_functions(ast.parse(source)):
        arguments = function.args
        named = [*arguments.posonlyargs, *arguments.args]
        is_static = any(ast.unparse(decorator) == "staticmethod" for decorator in function.decorator_list)
        if "." in name and not is_static:
            named = named[1:]  # self or cls
        named += [*arguments.kwonlyargs, *filter(None, (arguments.vararg, arguments.kwarg))]
        missing += [f"{name}({argument.arg})" for argument in named if argument.annotation is None]
        missing += [f"{name} -> ?"] if function.returns is None else []
    return missing


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_functions_are_annotated(path):
    assert unannotated(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(x: int, *y: int, z: int = 0, **more: int) -> None: ...", []),
        ("def f(x, *y, z=0, **more) -> None: ...", ["f(x)", "f(z)", "f(y)", "f(more)"]),
        ("def f(): ...", ["f -> ?"]),
        ("def _f(x): ...", []),
        ("def f() -> None:\n    def g(x): ...", []),
        ("class C:\n    def f(self, x) -> None: ...\n    def _f(self, x): ...", ["C.f(x)"]),
        ("class C:\n    def __init__(self, x: int): ...\n    def __eq__(self, other): ...", ["C.__init__ -> ?"]),
        ("class C:\n    @staticmethod\n    def f(x) -> None: ...", ["C.f(x)"]),
        ("class C:\n    class D:\n        def __call__(self, x) -> None: ...", ["C.D.__call__(x)"]),
        ("class _C:\n    def f(self, x): ...", []),
        ("if True:\n    def f(x) -> None: ...", ["f(x)"]),
    ],
)
def test_a_missing_annotation_is_found(source, found):
    assert unannotated(source) == found


def test_the_stub_imports_the_public_names_from_their_modules():
    import keras_bot

    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    assert all(alias.name == alias.asname for node in imports for alias in node.names)  # which exports the name
    modules = {alias.name: node.module for node in imports for alias in node.names}
    assert modules == {**keras_bot._MODULE_OF, **dict.fromkeys(keras_bot._MODULES, "keras_bot")}
    assert {*modules, "__version__"} == set(keras_bot.__all__)


def test_importing_keras_bot_is_quick_and_takes_no_keras():
    code = (
        "import time, sys; began = time.perf_counter(); import keras_bot; took = time.perf_counter() - began;"
        "assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules), 'too much imported';"
        "assert took < 0.3, took"
    )
    run_python(code, cwd=PACKAGE.parent)


def test_the_public_names_are_there():
    import keras_bot

    for name in keras_bot.__all__:
        assert getattr(keras_bot, name) is not None
