"""The rooms of the house, in the order of their imports, and its files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIRST = ["arguments", "checks", "errors", "limits", "opening"]
ROOMS = [
    *FIRST,
    "frameworks",
    "job",
    "batch",
    "report",
    "engine",
    "process",
    "cache",
    "cluster",
    "sequence",
    "loader",
    "for_keras",
    "metrics",
    "wiring",
    "checkup",
    "top",
    "__main__",
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
