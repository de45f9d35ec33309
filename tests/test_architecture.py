"""The plan of the house: who may import whom, how long files and functions may be, what must not stand anywhere."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.support.commands import ROOT
from vitcli import catalog

PACKAGE = ROOT / "vitcli"
FILES = sorted(PACKAGE.rglob("*.py"))

#: a module imports from strictly lower floors, or from its own folder
FLOORS = {
    "errors": 0, "image_size": 0,
    "catalog": 1, "disk": 1, "output": 1, "process": 1, "rendezvous": 1, "slurm": 1, "terminal": 1,
    "recipe": 2, "layers": 2, "parallel": 2, "distributed": 2, "log": 2,
    "models": 3, "data": 3, "optim": 3, "sinks": 3,
    "tasks": 4, "evaluators": 4, "weights": 4,
    "networks": 5,
    "engine": 6,
    "report": 7, "deploy": 7, "doctor": 7,
    "commands": 8,
    "cli": 9, "__main__": 10, "__init__": 10,
}  # fmt: skip


def room(module: str) -> str:
    """`vitcli.data.loader` and `data/loader.py` -> data."""
    return module.removeprefix("vitcli").strip(".").split(".")[0] or "__init__"


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def own_module(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imports(file: Path) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" if node.module == "vitcli" else node.module for alias in node.names]
            found += [(node.lineno, name) for name in names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.lineno, "relative import"))
        elif isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_law_of_imports(file: Path):
    own = room(own_module(file))
    for line, name in imports(file):
        assert name != "relative import", f"{file}:{line}"
        if not name.startswith("vitcli.") or own == "__init__":
            continue
        other = room(name)
        lower = FLOORS[other] < FLOORS[own]
        assert lower or other == own, (
            f"{file}:{line}: {own} (floor {FLOORS[own]}) may not import {other} ({FLOORS[other]})"
        )


def test_no_circles():
    """Inside a folder no module imports, over any detour, itself; imports for the type checker only do not count."""
    edges: dict[str, set[str]] = {}
    modules = {own_module(file) for file in FILES}
    for file in FILES:
        tree = parsed(file)
        guarded = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
            for inner in ast.walk(node)
        }
        edges[own_module(file)] = {
            node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module in modules and id(node) not in guarded
        }

    def reachable(start: str) -> set[str]:
        seen, left = set(), list(edges[start])
        while left:
            module = left.pop()
            if module not in seen:
                seen.add(module)
                left += edges.get(module, ())
        return seen

    assert not [module for module in edges if module in reachable(module)]


@cache
def defined(module: str) -> set[str]:
    """What can be imported from a module: names it binds at its top level, and files next to an `__init__`."""
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    names = {child.stem for child in path.iterdir()} if path.is_dir() else set()
    for node in ast.walk(parsed(file)) if file.is_file() else ():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def test_what_tests_and_benchmarks_import_is_there():
    """The type checker reads the package only; here nothing is imported, so it takes seconds."""
    outside = [
        file for folder in ("tests", "benchmarks", "launchers", "deploy") for file in (ROOT / folder).rglob("*.py")
    ]
    missing = [
        f"{file}:{node.lineno}: {node.module} has no {alias.name}"
        for file in outside
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("vitcli", "tests", "benchmarks")
        for alias in node.names
        if alias.name not in defined(node.module or "")
    ]
    assert not missing


def test_only_the_cli_knows_typer():
    for file in FILES:
        names = {name.split(".")[0] for _, name in imports(file)}
        assert "typer" not in names or room(own_module(file)) == "cli", file


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_models_and_layers_know_no_recipe_and_layers_no_model(file: Path):
    unknown = {"models": {"recipe"}, "layers": {"recipe", "models"}}.get(room(own_module(file)), set())
    for line, name in imports(file):
        assert not (name.startswith("vitcli.") and room(name) in unknown), f"{file}:{line}: {name}"


def test_the_train_story_knows_no_task_and_no_evaluator():
    """They come from the catalog: neither is imported or named in engine/ and commands/train.py."""
    contracts = {"vitcli.tasks.task", "vitcli.evaluators.evaluator"}
    kinds = {*catalog.TABLES["tasks"], *catalog.TABLES["evaluators"]}
    for file in [*(PACKAGE / "engine").glob("*.py"), PACKAGE / "commands" / "train.py"]:
        known = {name for _, name in imports(file) if name.startswith(("vitcli.tasks", "vitcli.evaluators"))}
        assert known <= contracts, file
        texts = {node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)}
        assert not kinds & texts - {"top1"}, file  # `top1` is a name in checkpoints of the former format


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_sizes(file: Path):
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 450
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 80, f"{file}:{node.lineno} {node.name}: {length} lines"


def test_most_files_and_functions_are_short():
    lengths = sorted(len(file.read_text().splitlines()) for file in FILES)
    assert lengths[int(0.95 * len(lengths))] <= 300
    functions = sorted(
        (node.end_lineno or 0) - node.lineno + 1
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef)
    )
    assert functions[len(functions) // 2] <= 12
    assert functions[int(0.9 * len(functions))] <= 40


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_module_says_what_it_is_for(file: Path):
    text = file.read_text(encoding="utf-8")
    assert not text or ast.get_docstring(ast.parse(text)), file


#: what safe code does not do
FORBIDDEN = [
    r"pickle\.loads?\(", r"yaml\.(full_|unsafe_)?load\(", r"(?<![.\w])eval\(", r"(?<![.\w])exec\(", r"shell=True",
    r"os\.system", r"MAX_IMAGE_PIXELS\s*=\s*None", r"weights_only=False", r"utils\.py",
]  # fmt: skip


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_nothing_unsafe(file: Path):
    text = file.read_text(encoding="utf-8")
    for pattern in FORBIDDEN:
        hits = [line for line in text.splitlines() if re.search(pattern, line)]
        assert not hits, f"{file}: {hits}"
    for call in re.findall(r"torch\.load\([^)]*\)", text):
        assert "weights_only=True" in call


def test_nobody_lets_cudnn_try_algorithms():
    """`cudnn.benchmark` times every algorithm for every shape; with FastViT that took minutes."""
    files = [*FILES, *(ROOT / "benchmarks").glob("*.py")]
    assert not [file for file in files if "cudnn.benchmark" in file.read_text(encoding="utf-8")]
