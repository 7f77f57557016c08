"""Sphinx: the pages of this repository where they lie, and the API from the docstrings. See ``scripts/docs``."""

from __future__ import annotations

import re
from typing import Any

from sphinx.ext.napoleon.docstring import GoogleDocstring

import workers

project = "prefetch-sequence"
version = release = workers.__version__
root_doc = "README"
include_patterns = [
    "README.rst",
    "workers/**/README.rst",
    "workers/README.rst",
    "sampler/README.rst",
    "scripts/README.rst",
    "scripts/sphinx/api.rst",
    "tests/README.rst",
    ".github/*.rst",
]
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"prefetch-sequence {version}"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_include_init_with_doc = True

_PAGES = """

.. toctree::
   :hidden:

   workers/README
   workers/sequence/README
   sampler/README
   workers/frameworks/README
   workers/process/README
   workers/report/README
   workers/cache/README
   workers/cluster/README
   workers/checkup/README
   scripts/sphinx/api
   scripts/README
   .github/CHANGELOG
   .github/CONTRIBUTING
   tests/README
"""
_LINK = re.compile(r"`([^`<>]+?)\s*<([^`<>]+)\.rst>`_")


def _as_documents(app: Any, name: str, source: list[str]) -> None:
    """Turn links between files into links between documents, and leave out contents, which the theme shows."""
    source[0] = _LINK.sub(r":doc:`\1 <\2>`", source[0]).replace(".. contents::\n   :local:\n", "")
    if name == root_doc:
        source[0] += _PAGES


def _whole_inline_attribute(self: Any) -> tuple[str, list[str]]:
    return "", self._dedent(self._consume_to_end())


def _whole_returns_section(self: Any, preprocess_types: bool = False) -> list[tuple[str, str, list[str]]]:
    return [("", "", self._dedent(self._consume_to_next_section()))]


def setup(app: Any) -> None:
    # What stands before a colon in the docstring of a property, or of a result, is no type: the signature says that.
    parser: Any = GoogleDocstring
    parser._consume_inline_attribute = _whole_inline_attribute
    parser._consume_returns_section = _whole_returns_section
    app.connect("source-read", _as_documents)
