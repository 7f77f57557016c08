"""The rooms of the house: imports run one way, and no file is a house of its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIRST = ["arguments", "bars", "checks", "errors", "limits"]
ROOMS = [
    *FIRST,
    "frameworks",
    "job",
    "batch",
    "figures",
    "engine",
    "process",
    "cluster",
    "sequence",
    "loader",
    "for_keras",
    "wiring",
    "top",
    "sampler",
]
FILES = sorted([*(ROOT / "workers").rglob("*.py"), *(ROOT / "sampler").rglob("*.py")])


def name_of(file: Path) -> list[str]:
    """Of workers/job/task.py: ["workers", "job", "task"]."""
    parts = [*file.relative_to(ROOT).with_suffix("").parts]
    return parts[:-1] if parts[-1] == "__init__" else parts


def room_of(name: list[str]) -> str:
    """Of a module's name; "workers" for the package itself, which is in front of all rooms but the last."""
    return name[0] if name[0] == "sampler" or len(name) == 1 else name[1]


def imports(file: Path) -> Iterator[list[str]]:
    """What a file imports of this project, wherever it does; but not for type checkers alone."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    package = name_of(file) if file.name == "__init__.py" else name_of(file)[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module or "").split(".")] if node.module else base
            found = [[*base, alias.name] for alias in node.names]
        else:
            continue
        yield from (name for name in found if name[0] in ("workers", "sampler"))


def test_imports_run_one_way() -> None:
    wrong = []
    for file in FILES:
        here = room_of(name_of(file))
        for name in imports(file) if here != "workers" else ():  # but for the front door
            there = room_of(name)
            is_by_the_front_door = name[0] == "workers" and there not in ROOMS  # a name that users import too
            is_right = here == "sampler" if is_by_the_front_door else ROOMS.index(there) <= ROOMS.index(here)
            if not is_right:
                wrong.append(f"{file.relative_to(ROOT)} imports {'.'.join(name)}")
    assert not wrong


def test_no_module_imports_itself() -> None:
    """Not in a circle either: within a room too there is a first module."""
    modules = {".".join(name_of(file)): file for file in FILES if file.name != "__init__.py"}
    needs = {}
    for module, file in modules.items():
        found = {name for each in imports(file) for name in (".".join(each), ".".join(each[:-1]))}
        needs[module] = found & set(modules)
    done: set[str] = set()
    while left := set(needs) - done:
        first = {module for module in left if needs[module] <= done | {module}}
        assert first, f"in a circle: {sorted(left)}"
        done |= first


def test_no_file_is_too_long() -> None:
    too_long = []
    for file in FILES:
        text = file.read_text()
        lengths = {str(file.relative_to(ROOT)): len(text.splitlines()) - 350}
        classes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
        lengths |= {node.name: (node.end_lineno or 0) - node.lineno - 249 for node in classes}
        too_long += [f"{name}, by {length} lines" for name, length in lengths.items() if length > 0]
    assert not too_long
