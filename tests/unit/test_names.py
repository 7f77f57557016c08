"""One name for one thing: classes, frameworks, references in docstrings, and what ``workers.`` and Tab offer."""

from __future__ import annotations

import ast
import collections
import functools
import importlib
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from house import FILES, ROOMS, ROOT, name_of

import workers

#: {a framework: (what names its modules, where it is known)}, beside the table of all in ``frameworks``.
FRAMEWORKS: dict[str, tuple[str, set[str]]] = {
    "tensorflow": ("tensorflow|tf", {"frameworks/tensorflow.py", "frameworks/tensorflow_draws.py"}),
    "torch": ("torch", {"frameworks/torch.py"}),
    "keras": (
        "keras",
        {
            "frameworks/keras.py",
            "for_keras/adapter.py",
            "for_keras/resume.py",
            "metrics/keras.py",
            "metrics/log_loading.py",
        },
    ),
    "lightning": ("lightning|pytorch_lightning", {"metrics/lightning.py", "metrics/log_loading.py", "__main__.py"}),
    "prometheus_client": ("prometheus_client", {"metrics/prometheus.py"}),
    "jax": ("jax|jaxlib", {"frameworks/jax.py"}),
    "albumentations": ("albumentations", {"frameworks/albumentations.py"}),
}


def _names(tree: ast.Module) -> Iterator[str]:
    """The modules that a file imports, and the strings in it that are not documentation."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented) and _has_doc(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def _has_doc(node: Any) -> bool:
    return bool(node.body) and isinstance(node.body[0], ast.Expr) and ast.get_docstring(node) is not None


@functools.cache
def _trees() -> dict[str, ast.Module]:
    files = [file for file in FILES if name_of(file)[0] == "workers"]
    return {str(file.relative_to(ROOT / "workers")): ast.parse(file.read_text()) for file in files}


@functools.cache
def _all_names() -> dict[str, set[str]]:
    return {file: set(_names(tree)) for file, tree in _trees().items()}


def test_no_two_classes_share_a_name() -> None:
    names = collections.Counter(
        node.name for tree in _trees().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    )
    assert not {name for name, number in names.items() if number > 1}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_framework_is_named_where_it_is_known(framework: str) -> None:
    names, known = FRAMEWORKS[framework]
    pattern = re.compile(rf"({names})(\.[\w.]*)?")
    found = {file for file, names_in_it in _all_names().items() if any(map(pattern.fullmatch, names_in_it))}
    assert found - {"frameworks/__init__.py"} == known


#: A reference of Sphinx in a docstring, such as :meth:`Sequence.map`.
_REFERENCE = re.compile(r":(class|func|meth|attr|mod|data):`~?\.?([\w.]+)`")


def _documented() -> Iterator[tuple[Path, str, str | None]]:
    """(a file, a docstring or comment of it, the class that it is in)."""
    for file in FILES:
        tree = ast.parse(file.read_text())
        parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _REFERENCE.search(node.value):
                within: Any = node
                while within is not None and not isinstance(within, ast.ClassDef):
                    within = parents.get(within)
                yield file, node.value, within and within.name


def _resolves(name: str, module: types.ModuleType, within: str | None) -> bool:
    first, *rest = name.split(".")
    roots = [getattr(module, within, None)] if within else []
    roots += [module, importlib.import_module("workers"), importlib.import_module("sampler")]
    for root in roots:
        found = getattr(root, first, None) if first not in ("workers", "sampler") else importlib.import_module(first)
        for part in rest:
            try:
                found = getattr(found, part)
            except AttributeError:
                try:
                    found = importlib.import_module(f"{found.__name__}.{part}")  # type: ignore[union-attr]
                except (AttributeError, ImportError):
                    found = getattr(found, "__annotations__", {}).get(part)
        if found is not None:
            return True
    return False


def test_references_resolve() -> None:
    wrong = []
    for file, text, within in _documented():
        module = importlib.import_module(".".join(name_of(file)))
        for _, name in _REFERENCE.findall(text):
            if not _resolves(name.removeprefix("."), module, within):
                wrong.append(f"{file.relative_to(ROOT)}: {name}")
    assert not wrong


def test_what_the_package_offers() -> None:
    """Nothing but what it is for, and its rooms: no module that was imported for its effect."""
    public = {name for name in set(dir(workers)) - set(workers.__all__) if not name.startswith("_")}
    assert public <= set(ROOMS)
    assert all(isinstance(getattr(workers, name), types.ModuleType) for name in public)


def test_the_list_of_rooms_is_that_of_the_house() -> None:
    """In the order of their imports."""
    told = re.findall(r"^- ((?:``\w+``, )*``\w+``):", workers.__doc__ or "", re.MULTILINE)
    assert [room for line in told for room in re.findall(r"\w+", line)] == [room for room in ROOMS if room != "sampler"]
