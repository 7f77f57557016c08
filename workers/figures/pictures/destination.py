"""Where a figure is written: checked before anything is drawn, and written when all of it is there."""

from __future__ import annotations

import os
from pathlib import Path

from workers.checks import short


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
