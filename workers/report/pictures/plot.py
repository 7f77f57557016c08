"""A report as a picture: what is checked before ``plot_page`` draws it."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from workers.checks import short

if TYPE_CHECKING:
    from workers.report.report import Report


def plot(report: Report, path: str | os.PathLike[str]) -> Path:
    """Draw the last seconds: a lane for each worker and one for the loop, and below them the finished batches.

    Args:
        report: of a front-end.
        path: of the file: ``.png``, ``.svg`` or ``.pdf``.

    Returns:
        ``path``.

    Raises:
        TypeError, ValueError, OSError: ``path`` is none, ends in something else, or cannot be written.
        ImportError: matplotlib is not installed.
    """
    file = check_path(path, (".png", ".svg", ".pdf"))
    try:
        from matplotlib import style
    except ImportError as error:
        raise ImportError(
            "a report is drawn with matplotlib, which cannot be imported: pip install matplotlib"
        ) from error
    from .plot_page import page

    drawn = io.BytesIO()
    # The user's own style is for the user's figures; text of an SVG stays text, which can be searched and is small.
    with style.context(["default", {"svg.fonttype": "none"}]):
        page(report).savefig(drawn, format=file.suffix[1:].lower())
    file.write_bytes(drawn.getvalue())
    return file


def check_path(path: str | os.PathLike[str], suffixes: tuple[str, ...]) -> Path:
    """``path`` as a file that can be written, of one of these kinds.

    Raises:
        TypeError: it is no path. ValueError: its name ends in none of ``suffixes``, in whatever case.
        FileNotFoundError: its folder does not exist. NotADirectoryError: that is a file. IsADirectoryError: ``path``
            is a folder.
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        allowed = f"a path that ends in {' or '.join(suffixes)}"
        raise TypeError(f"path must be {allowed}, not {short(path)} ({type(path).__name__})")
    file = Path(path)
    if not file.name.lower().endswith(suffixes) or file.name.lower() in suffixes:
        raise ValueError(f"path must end in {' or '.join(suffixes)}, not {short(os.fspath(path))}")
    if not file.parent.exists():
        raise FileNotFoundError(f"path {short(str(file))} cannot be written: there is no folder {str(file.parent)!r}")
    if not file.parent.is_dir():
        raise NotADirectoryError(f"path {short(str(file))} cannot be written: {str(file.parent)!r} is no folder")
    if file.is_dir():
        raise IsADirectoryError(f"path {short(str(file))} cannot be written: it is a folder")
    return file
