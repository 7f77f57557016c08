"""A report as a picture. Here it is only checked whether it can be drawn and written; ``page`` draws it."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from .destination import check_path

if TYPE_CHECKING:
    from workers.figures.report import Report


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
    from .page import page

    drawn = io.BytesIO()
    # The user's own style is for the user's figures; text of an SVG stays text, which can be searched and is small.
    with style.context(["default", {"svg.fonttype": "none"}]):
        page(report).savefig(drawn, format=file.suffix[1:].lower())
    file.write_bytes(drawn.getvalue())
    return file
