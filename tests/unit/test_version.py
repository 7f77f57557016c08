"""One place says the version, and what is built has it, with every package. scripts/package looks at what is built."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path

import workers

ROOT = Path(__file__).resolve().parents[2]


def setup() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def test_it_is_semantic() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", workers.__version__)


def test_it_can_be_read_without_importing_anything() -> None:
    """Only of a literal setuptools reads it so: numpy need not be there when a wheel is built."""
    assert setup()["metadata"]["version"] == "attr: workers.__version__"
    values = [
        node.value
        for node in ast.parse((ROOT / "workers" / "__init__.py").read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    ]
    assert [ast.literal_eval(value) for value in values] == [workers.__version__]


def test_every_package_is_built() -> None:
    files = [file for name in ("sampler", "workers") for file in (ROOT / name).rglob("__init__.py")]
    folders = [file.parent.relative_to(ROOT).parts for file in files]
    assert sorted(setup()["options"]["packages"].split()) == sorted(".".join(parts) for parts in folders)
