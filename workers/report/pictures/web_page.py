"""Writes a report as one self-contained web page: figures, tables, and a timeline that zooms.

The page loads nothing. Its Content-Security-Policy allows only the style and the script that are in the page, by their
hashes, so that no text of a user (the name of a function or source, an error) can run as code.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import string
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from . import web_page_sections as sections
from .plot import check_path
from .web_page_timeline import PageTimeline

if TYPE_CHECKING:
    from workers.report.report import Report

_SCRIPTS = ("web_page_data.js", "web_page_draw.js", "web_page_move.js")


def save(report: Report, path: str | os.PathLike[str]) -> Path:
    """Write ``report`` as a web page that needs no other file and no network.

    Args:
        path: the file to write: ``.html``.

    Returns:
        ``path``.

    Raises:
        TypeError, ValueError, OSError: ``path`` is not a path, has another suffix, or cannot be written.
    """
    file = check_path(path, (".html",))
    # A name may hold half of a surrogate pair, such as a file's name that is not UTF-8; it becomes "?".
    page = _page(report).encode("utf-8", "replace")
    file.write_bytes(page)
    return file


def _page(report: Report) -> str:
    timeline = PageTimeline(report)
    style = _file("web_page.css")
    script = "\n".join(map(_file, _SCRIPTS)) if timeline.length_ns else ""
    said, rest = sections.split_verdict(report.verdict)
    now = datetime.now(timezone.utc).astimezone()
    return string.Template(_file("web_page.html")).substitute(
        policy=f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        style=style,
        script=script,
        title=html.escape(said),
        verdict=html.escape(sections.with_units(said)),
        advice=f'<p class="advice">{html.escape(sections.with_units(rest))}</p>' if rest else "",
        figures=sections.figures(report),
        times=sections.times(report),
        timeline=sections.timeline(timeline),
        details=sections.details(report, timeline),
        written=f'<time datetime="{now.isoformat(timespec="seconds")}">{now:%Y-%m-%d %H:%M} (UTC{now:%z})</time>',
        data=json.dumps(timeline.data(), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    )


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the hash of an inline style or script, as a Content-Security-Policy names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
