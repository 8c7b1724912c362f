"""The house: imports point down, no circles, nine floors, no module name twice."""

from __future__ import annotations

import ast
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[1]
SOURCES = [ROOT / "src" / "shiftlens", ROOT / "callbacks", ROOT / "hooks"]
FLOORS: tuple[set[str], ...] = (
    {"errors", "assets"},
    {"support", "hooks"},
    {"results", "prompts", "models"},
    {"stats", "report", "attribution", "words"},
    {"scores", "weights", "tuning", "sweep", "annotate"},
    {"analyses", "scratch", "api"},
    {"callbacks"},
    {"run"},
    {"cli"},
)
"""Rooms from the ground up; a room may import from lower floors and from itself. The package itself lies on top."""
FIXED = {"__init__", "__main__", "compute", "findings", "figures", "section"}
"""Names that every analysis has."""


def modules() -> dict[str, Path]:
    """Dotted name -> file, of the package with its two linked rooms."""
    found = {}
    for top in SOURCES:
        prefix = [] if top.name == "shiftlens" else [top.name]
        for path in sorted(top.rglob("*.py")):
            if any(part.is_symlink() for part in (path, *path.parents)):
                continue
            parts = [*prefix, *path.relative_to(top).with_suffix("").parts]
            found[".".join(["shiftlens", *(parts[:-1] if parts[-1] == "__init__" else parts)])] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path], lazily: bool) -> set[str]:
    """The modules of the package that a module imports; with `lazily` those inside functions too."""
    tree, found = ast.parse(path.read_text(encoding="utf-8")), set()
    body = list(ast.walk(tree)) if lazily else [n for s in tree.body for n in _outside(s)]
    for node in body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "shiftlens":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in known else str(node.module))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "shiftlens"}
    return found - {name}


def _outside(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return []
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        return []
    return [node, *(inner for child in ast.iter_child_nodes(node) for inner in _outside(child))]


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def test_imports_point_down_and_there_are_at_most_nine_floors():
    known = modules()
    floor = {name: number for number, rooms in enumerate(FLOORS, start=1) for name in rooms}
    assert len(FLOORS) <= 9
    assert {room(name) for name in known} - {""} <= floor.keys()
    up = sorted(
        f"{name} imports {other}"
        for name, path in known.items()
        if room(name)
        for other in imports(name, path, known, lazily=True)
        if room(other) != room(name) and floor.get(room(other), 99) >= floor[room(name)]
    )
    assert up == []


def test_no_circle_of_modules():
    known = modules()
    TopologicalSorter({name: imports(name, path, known, lazily=False) for name, path in known.items()}).prepare()


def test_no_module_name_twice():
    names = Counter(
        path.stem for name, path in modules().items() if path.stem not in FIXED and room(name) != "callbacks"
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_no_test_imports_a_test():
    imports = {
        (str(path.relative_to(ROOT)), name)
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert {(path, name) for path, name in imports if name.split(".")[-1].startswith("test_")} == set()


def test_files_are_short():
    others = [
        *(ROOT / "benchmarks").glob("*.py"),
        *(ROOT / "scripts").glob("*.py"),
        *(ROOT / "tests").rglob("*.py"),
    ]
    sources = [*modules().values(), *others]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    assert {path: lines for path, lines in lengths.items() if lines > 300} == {}


@pytest.mark.parametrize("folder", ["report"])
def test_the_report_names_no_analysis(folder):
    analyses = {path.name for path in (ROOT / "src" / "shiftlens" / "analyses").iterdir() if path.is_dir()}
    for path in (ROOT / "src" / "shiftlens" / folder).glob("*.*"):
        if path.suffix in (".py", ".j2", ".js"):
            text = path.read_text(encoding="utf-8")
            assert not [name for name in analyses if f"analyses.{name}" in text or f'"{name}"' in text], path
