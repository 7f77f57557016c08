"""``FolderStore``: keeps items as files in a folder, for all programs that use the folder, at once or later.

Each file holds the items with one key. It is written under another name and then renamed, so that it is there as a
whole or not at all. A process checks the length and the checksum of a file when it first reads it. A file that is
damaged is deleted, and its items are computed again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from workers.batch import shared_memory
from workers.errors import add_note

from .packed import PackedError, pack, unpack

logger = logging.getLogger("workers")

_ABOUT = "about.json"
_PER_FOLDER = 4096  # files
_UNFINISHED = ".part"
_OLD_S = 3600.0  # unfinished files of this age are left over from a process that was killed


class FolderStore:
    """Items as files in ``folder``/``name``, which is created. ``about`` describes them, for :func:`cache_info`."""

    def __init__(self, folder: str, name: str, about: dict[str, Any]) -> None:
        self.path, self._about = os.path.join(folder, name), about
        try:
            known = _about(self.path) or {}
            self._begin(int(known.get("generation", 0)))
        except OSError as error:
            add_note(error, f"raised in .cache({folder!r}), which must be a folder that this program can write to")
            raise
        remove_unfinished(self.path)

    def _begin(self, generation: int) -> None:
        self._set_up(self.path, self._about, generation)
        os.makedirs(self.path, exist_ok=True)
        if (_about(self.path) or {}).get("generation") != generation:
            about = {"created": time.time(), **self._about, "generation": generation}
            self._write(os.path.join(self.path, _ABOUT), [json.dumps(about, indent=1).encode()])

    def _set_up(self, path: str, about: dict[str, Any], generation: int) -> None:
        self.path, self._about, self._generation = path, about, generation
        self._checked: set[int] = set()  # the keys of files that this process has checked
        self._is_full = False

    def __reduce__(self) -> Any:
        return _opened, (self.path, self._about, self._generation)

    def renewed(self) -> FolderStore:
        """Delete all files of items. Return an empty store in their place; what is still put into this one is lost."""
        made = FolderStore.__new__(FolderStore)
        made.path, made._about = self.path, self._about
        made._begin(self._generation + 1)
        _delete(self.path, keep=_ABOUT)
        return made

    def get(self, key: int) -> list[Any] | None:
        """Return the items with ``key``, whose arrays are read-only views of the file; None if they are not kept."""
        path = self._path(key)
        try:
            memory = _mapped(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            add_note(error, "raised when the folder of .cache(folder) was read")
            raise
        try:
            items = unpack(key, memory, key not in self._checked)
        except PackedError as error:
            logger.warning("%s is damaged (%s): it is deleted, and its items are computed again", path, str(error))
            self._checked.discard(key)
            with contextlib.suppress(OSError):
                os.unlink(path)
            return None
        self._checked.add(key)
        return items

    def put(self, key: int, items: list[Any]) -> bool:
        """Keep ``items``. Return False if the disk is full."""
        if self._is_full:
            return False
        packed, path = pack(key, items, True), self._path(key)
        try:
            if not os.path.isdir(os.path.dirname(path)):
                if not os.path.isdir(self.path):  # it was deleted
                    self._begin(self._generation)
                os.makedirs(os.path.dirname(path), exist_ok=True)
            self._write(path, packed.parts)
        except OSError as error:
            self._is_full = True
            logger.warning("no more items are kept in %s, and they are computed each time: %s", self.path, error)
            return False
        self._checked.add(key)
        return True

    @property
    def nbytes(self) -> int:
        """The bytes in use."""
        return sum(size for _, size in _files(self.path))

    @property
    def num_items(self) -> int:
        """The number of keys whose items are kept."""
        return sum(1 for _ in _files(self.path))

    def _path(self, key: int) -> str:
        return os.path.join(self.path, f"{self._generation}-{key // _PER_FOLDER:05d}", f"{key:09d}.items")

    @staticmethod
    def _write(path: str, parts: list[Any]) -> None:
        unfinished = f"{path}.{secrets.token_hex(8)}{_UNFINISHED}"
        try:
            with open(unfinished, "wb") as file:
                file.writelines(parts)
            os.replace(unfinished, path)
        except BaseException:  # e.g. the disk is full
            with contextlib.suppress(OSError):
                os.unlink(unfinished)
            raise


def _mapped(path: str) -> memoryview:
    """Return the content of the file at ``path``, mapped into memory."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        nbytes = os.fstat(file).st_size
        if not nbytes:  # which cannot be mapped
            return memoryview(b"")
        return shared_memory.view(shared_memory.attach(file, nbytes, writable=False)).toreadonly()
    finally:
        os.close(file)


def _opened(path: str, about: dict[str, Any], generation: int) -> FolderStore:
    store = FolderStore.__new__(FolderStore)
    store._set_up(path, about, generation)
    return store


class CacheInfo(NamedTuple):
    """What :func:`cache_info` says of one cache in a folder.

    Attributes:
        name: the name of its folder, made from what is cached.
        source: what the cached items were made from.
        functions: the functions that have made them.
        num_items: how many items are cached.
        nbytes: the size of their files.
        created: when the cache was created, in seconds since 1970.
    """

    name: str
    source: str
    functions: list[str]
    num_items: int
    nbytes: int
    created: float


def cache_info(folder: str | os.PathLike[str]) -> list[CacheInfo]:
    """Return what ``sequence.cache(folder)`` has kept in ``folder``, the oldest first.

    A folder can hold several caches: a change of the source, a function or a version of a library begins a new one.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    found = []
    for name, about in _caches(os.fspath(folder)):
        sizes = [size for _, size in _files(os.path.join(folder, name))]
        found.append(
            CacheInfo(name, about["source"], about["functions"], len(sizes), sum(sizes), float(about["created"]))
        )
    return sorted(found, key=lambda each: each.created)


def clear_cache(folder: str | os.PathLike[str], name: str | None = None) -> None:
    """Delete the caches that ``sequence.cache(folder)`` has made in ``folder``, and no other file.

    A program that uses them computes the items again.

    Args:
        name: the ``name`` of one of :func:`cache_info`; None for all.

    Raises:
        FileNotFoundError: there is no such folder, or no cache of that name in it.
    """
    names = [each for each, _ in _caches(os.fspath(folder)) if name in (None, each)]
    if name is not None and not names:
        raise FileNotFoundError(f"there is no cache {name!r} in {os.fspath(folder)!r}: see cache_info(folder)")
    for each in names:
        _delete(os.path.join(folder, each))


def _caches(folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (name, what is known about it) of each cache in ``folder``."""
    for entry in os.scandir(folder):
        about = _about(entry.path)
        if about is not None and {"source", "functions", "created"} <= about.keys():
            yield entry.name, about


def _about(path: str) -> dict[str, Any] | None:
    """Return what is known about the cache at ``path``; None if there is no cache."""
    try:
        with open(os.path.join(path, _ABOUT)) as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _files(path: str) -> Iterator[tuple[str, int]]:
    """Yield (path, size) of each file of items in the cache at ``path``."""
    for part in _entries(path):
        for entry in _entries(part.path) if part.is_dir() else ():
            if entry.name.endswith(".items"):
                with contextlib.suppress(FileNotFoundError):
                    yield entry.path, entry.stat().st_size


def _entries(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []


def remove_unfinished(path: str) -> None:
    """Delete files in the cache at ``path`` that were not finished, because their process was killed."""
    for part in _entries(path):
        for entry in _entries(part.path) if part.is_dir() else [part]:
            with contextlib.suppress(OSError):
                if entry.name.endswith(_UNFINISHED) and entry.stat().st_mtime < time.time() - _OLD_S:
                    os.unlink(entry.path)


def _delete(path: str, keep: str = "") -> None:
    """Delete the cache at ``path``: the files of items, and those that are not finished; and the folders."""
    for part in _entries(path):
        entries = _entries(part.path) if part.is_dir() else [part]
        for entry in entries:
            is_ours = entry.name.endswith((".items", _UNFINISHED)) or entry.name == _ABOUT
            if is_ours and entry.name != keep:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.path)
        if part.is_dir():
            with contextlib.suppress(OSError):  # it holds something else, or a program is writing to it
                os.rmdir(part.path)
    if not keep:
        with contextlib.suppress(OSError):
            os.rmdir(path)
