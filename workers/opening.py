"""``workers.open``: opens files by path or URL, in the program as in a worker."""

from __future__ import annotations

import builtins
import os
from typing import Any


def open(path: str | os.PathLike[str], mode: str = "r", **options: Any) -> Any:  # noqa: A001
    """Open a file, given by its path or by a URL such as ``"s3://bucket/shard-0001.tar"``, and return it.

    In a job it opens the file in the worker, so neither the file nor its connection has to be sent there. What the
    network fails to deliver raises an error in the job: ``on_error="retry"`` with ``retry_wait=...`` runs it again.

    Args:
        path: a path, or a URL that ``fsspec`` knows: ``s3://``, ``gs://``, ``https://``, ``simplecache::https://``
            (which keeps a copy) and many more. URLs need the extra ``remote``, and some also a package of their own.
        mode: as for the ``open`` of Python: ``"rb"`` for bytes.
        **options: of a path, those of Python's ``open``; of a URL, those of ``fsspec.open``.

    Returns:
        A file, to be used in a ``with`` statement.

    Raises:
        FileNotFoundError, OSError: the file cannot be opened. ImportError: a URL was given, and ``fsspec``, or the
            package that it needs for this URL, is not installed.

    Example:
        >>> import workers
        >>> def read_lines(path):
        ...     with workers.open(path) as file:
        ...         yield from file
        >>> lines = workers.prefetch(["https://example.com/1.txt"], 0).map(read_lines)

    Source: ``open`` of Python, and ``fsspec.open``.
    """
    name = os.fspath(path)
    if "://" not in name and "::" not in name:
        return builtins.open(name, mode, **options)
    try:
        import fsspec  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        text = f"{name!r} is a URL, and opening it needs fsspec: pip install prefetch-sequence[remote]"
        raise ImportError(text) from error
    return fsspec.open(name, mode, **options).open()
