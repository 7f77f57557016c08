"""Checks the arguments of ``Report.plot``, and writes the picture that ``plot_page`` draws into a file."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from workers.checks import short

if TYPE_CHECKING:
    from workers.report.report import Report


def plot(report: Report, path: str | os.PathLike[str]) -> Path:
    """Draw the last seconds of ``report`` into a file: a lane (row) for each worker and one for the loop.

    Below them is the number of finished batches.

    Args:
        path: the file to write: ``.png``, ``.svg`` or ``.pdf``.

    Returns:
        ``path``.

    Raises:
        TypeError, ValueError, OSError: ``path`` is not a path, has another suffix, or cannot be written.
        ImportError: matplotlib is not installed.
    """
    file = check_path(path, (".png", ".svg", ".pdf"))
    try:
        from matplotlib import style
    except ImportError as error:
        raise ImportError(
            "drawing a report needs matplotlib, which cannot be imported: pip install matplotlib"
        ) from error
    from .plot_page import page

    drawn = io.BytesIO()
    # The user's style is for the user's figures. The text of an SVG stays text, which is small and can be searched.
    with style.context(["default", {"svg.fonttype": "none"}]):
        page(report).savefig(drawn, format=file.suffix[1:].lower())
    file.write_bytes(drawn.getvalue())
    return file


def check_path(path: str | os.PathLike[str], suffixes: tuple[str, ...]) -> Path:
    """Return ``path`` as a Path, after checking its type, suffix and folder.

    Raises:
        TypeError: ``path`` is not a path.
        ValueError: its name ends in none of ``suffixes``, in upper or lower case.
        FileNotFoundError, NotADirectoryError, IsADirectoryError: its folder does not exist or is a file, or ``path`` is
            a folder.
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
        raise NotADirectoryError(f"path {short(str(file))} cannot be written: {str(file.parent)!r} is not a folder")
    if file.is_dir():
        raise IsADirectoryError(f"path {short(str(file))} cannot be written: it is a folder")
    return file
