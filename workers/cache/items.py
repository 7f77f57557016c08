"""``ItemCache``: finds the items with a key, or has them computed and keeps them. The items must not depend on the job.

Before items are kept, it is checked that the functions that have made them have drawn no random numbers. If what they
were made from changes, the cache is emptied at the beginning of the next epoch.
"""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import os
import pickle
import re
import time
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from workers.batch.memory_limit import available_nbytes
from workers.batch.pickling import Pickler
from workers.batch.private import is_private
from workers.checks import check_int, function_name, short
from workers.errors import CacheError, add_note
from workers.job import context
from workers.job.draws import DrawSearch
from workers.job.function_use import unmeasured
from workers.job.notes import CacheUse, note_cached
from workers.job.seeding import RunAgain, unseeded
from workers.process.change_detector import ChangeDetector
from workers.process.replica import ReplicaPickler

from .fingerprint import fingerprint
from .in_folder import FolderStore
from .in_memory import MemoryStore
from .packed import is_plain

_Result = TypeVar("_Result")

logger = logging.getLogger("workers")

_SHARE = 0.5  # of the available memory, by default: the rest is for the program, its workers and batches
_DEFAULT_NBYTES = 1 << 30  # if it is unknown how much memory is available
_UNITS = {"": 1, **{unit: 1000 ** (at + 1) for at, unit in enumerate("kMGT")}}
_UNITS |= {unit + "i": 1024 ** (at + 1) for at, unit in enumerate("kMGT")} | {"K": 1000, "Ki": 1024}
_ONE_HIT = CacheUse(hits=1)


class ItemCache:
    """A cache of the items that functions make. An item is found by its key, from 0 on.

    Args:
        num_keys: the number of keys.
        made_from: what the items are made from: the functions and, last, the source.
        memory: the most bytes to use; None for half of what is available now. A number, or a text such as "8GB".
        folder: the folder in which to keep the items; None to keep them in shared memory.
        name: the name of the cache in ``folder``; None for a hash of what the items are made from.
    """

    def __init__(
        self,
        num_keys: int,
        made_from: list[Any],
        memory: int | str | None = None,
        folder: str | os.PathLike[str] | None = None,
        name: str | None = None,
    ) -> None:
        if folder is not None and memory is not None:
            raise TypeError("give memory=... or a folder, not both: a cache in a folder takes no memory of its own")
        if name is not None and folder is None:
            raise TypeError("name=... is the name of a cache in a folder: write .cache(folder, name=...)")
        self.folder = None if folder is None else os.path.abspath(_checked_folder(folder))
        self.name = None if name is None else _checked_name(name)
        self.memory = memory
        self._nbytes = checked_nbytes(memory)
        self._changes = Changes()
        self._num_changes = 0
        self.store: MemoryStore | FolderStore | None = self._new(num_keys, made_from)
        self._changes.look(made_from, False)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_changes"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _changes=Changes())

    def _new(self, num_keys: int, made_from: list[Any]) -> MemoryStore | FolderStore:
        if self.folder is None:
            return MemoryStore(num_keys, self._nbytes if self._nbytes is not None else _default_nbytes())
        name = self.name or fingerprint(made_from)
        functions = [function_name(each) for each in made_from if callable(each)]
        source = short(made_from[-1])
        return FolderStore(self.folder, name, {"source": source, "functions": functions})

    def begin_epoch(self, num_keys: int, made_from: list[Any], has_hooks: bool, num_changes: int) -> None:
        """Empty the cache if what its items are made from has changed since the last call.

        Args:
            has_hooks: True if hooks are defined, which may change anything; then everything is compared.
            num_changes: how often ``changed()`` was called.
        """
        is_said, self._num_changes = num_changes != self._num_changes, num_changes
        has_changed = self._changes.look(made_from, has_hooks)
        store = self.store
        is_new = store is None or (isinstance(store, MemoryStore) and store.num_keys < num_keys)
        if not (is_said or has_changed or is_new):
            return
        if isinstance(store, FolderStore):
            made: Any = self._new(num_keys, made_from) if has_changed else store
            is_same = made.path == store.path
            is_renewed = is_same and (is_said or (has_changed and self.name is not None))
            self.store = made.renewed() if is_renewed else store if is_same else made
        elif is_new or store is None or store.nbytes:
            self.store = None  # frees its memory first
            self.store = self._new(num_keys, made_from)

    def get(self, key: int) -> list[Any] | None:
        """Return the items with ``key``; None if they are not kept. Arrays among them are read-only."""
        items = None if self.store is None else self.store.get(key)
        if items is not None:
            note_cached(_ONE_HIT)
        return items

    def watched(self, compute: Callable[[], _Result], what: Callable[[], str]) -> _Result:
        """Return ``compute()``.

        Raises:
            CacheError: it has drawn random numbers: see :meth:`computed`.
            RunAgain: it may have drawn some that were not seeded, so the job has to run again.
        """
        draws = DrawSearch()
        try:
            with unmeasured():  # what is made only once
                found = compute()
            stream = context.current.stream
            why = "" if stream is None else unseeded(stream)
            if why:
                raise RunAgain(why)
            drawn = draws.found()
        finally:
            draws.end()
        if drawn:
            raise _error_of(drawn, what())
        return found

    def computed(
        self, key: int, compute: Callable[[int], list[Any]], what: Callable[[], str], number: int
    ) -> list[Any]:
        """Return ``compute(number)``, the items with ``key``, and keep them, if there is space left.

        Args:
            what: returns what makes the items, for the text of an error, e.g. "load".

        Raises:
            CacheError: ``compute`` has drawn random numbers, or has asked for the epoch.
        """
        start_ns, store = time.monotonic_ns(), self.store  # another one may take its place in the meantime
        items = self.watched(functools.partial(compute, number), what)
        if store is not None:
            try:
                if store.put(key, items) and not _is_new_and_plain(items):
                    items = store.get(key) or items  # as it will be found later
            except Exception as error:
                add_note(error, f"raised when .cache() kept item {key}, which {what()} has made")
                raise
        note_cached(CacheUse(0, 1, time.monotonic_ns() - start_ns))
        return items


def _error_of(drawn: str, what: str) -> CacheError:
    did = "depends on the epoch" if drawn in ("epoch", "current_job()") else "draws random numbers"
    return CacheError(
        f"{what} {did} (by {drawn}), so a cache would freeze the result: each epoch would get the first one. Do this "
        "after the cache, as in .map(load).cache().map(augment)"
    )


def _is_new_and_plain(items: list[Any]) -> bool:
    """Return True if ``items`` are the same when they are read from the cache, and nothing else holds them."""
    return is_plain(items) and _is_same_when_unpickled(items) and is_private(items)


def _is_same_when_unpickled(value: Any) -> bool:
    """Return True if it is certain that a pickled and unpickled ``value`` is the same, in memory too."""
    if type(value) is np.ndarray:
        return bool(value.flags.c_contiguous)
    parts = value.values() if type(value) is dict else value if type(value) in (list, tuple) else ()
    return all(map(_is_same_when_unpickled, parts))


class Changes:
    """Finds out whether objects have changed since the last look."""

    def __init__(self) -> None:
        self._detector = ChangeDetector()
        self._digest = ""
        self._has_told = False

    def look(self, objects: list[Any], is_exact: bool) -> bool:
        """Return True if ``objects`` may have changed since the last look.

        If ``is_exact``, everything is compared. If not, some changes are missed: see :meth:`workers.Sequence.changed`.
        """
        digest = _digest(objects) if is_exact else ""
        before, self._digest = self._digest, digest
        if digest:
            return digest != before
        has_changed = self._detector.has_changed(objects, False)
        is_known = self._detector.is_known
        self._detector.commit()
        if is_known or not is_exact:
            return has_changed and is_known
        if not self._has_told:
            self._has_told = True
            logger.warning(
                "what .cache() keeps is computed anew in each epoch: the hooks may have changed what it was made from, "
                "which cannot be compared, as it cannot be pickled"
            )
        return True


def _digest(objects: list[Any]) -> str:
    """Return a hash of ``objects``; "" if they cannot be pickled."""
    found = hashlib.blake2b(digest_size=16)

    def add(buffer: pickle.PickleBuffer) -> bool:
        memory = np.frombuffer(buffer.raw(), np.uint8)
        whole = memory[: memory.nbytes // 8 * 8].view(np.uint64)
        found.update(repr((memory.nbytes, zlib.crc32(memory.data), int(np.bitwise_xor.reduce(whole)))).encode())
        return False

    for pickler in (Pickler, ReplicaPickler):  # the first one reads memmaps too, the second one knows more objects
        try:
            with io.BytesIO() as file:
                pickler(file, protocol=5, buffer_callback=add).dump(objects)
                found.update(file.getvalue())
            return found.hexdigest()
        except Exception:  # reducers may raise anything
            continue
    return ""


def _default_nbytes() -> int:
    available = available_nbytes()
    return _DEFAULT_NBYTES if available is None else max(1 << 20, int(available * _SHARE))


def checked_nbytes(memory: Any) -> int | None:
    """Return ``memory``, such as 8_000_000_000 or "8GB", as a number of bytes; None if it is None."""
    if memory is None:
        return None
    allowed = 'None, a number of bytes, or a text such as "8GB" or "512MiB"'
    if isinstance(memory, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([kKMGT]i?)?B?\s*", memory)
        if found is None:
            raise ValueError(f"memory must be {allowed}, not {short(memory)}")
        memory = round(float(found[1]) * _UNITS[found[2] or ""])
    return check_int("memory", memory, 1, allowed)


def _checked_folder(folder: Any) -> str:
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(f"folder must be a path, not {short(folder)} ({type(folder).__name__}); memory is memory=...")
    found: str = os.fspath(folder)
    if re.fullmatch(r"\d+(\.\d+)?\s*[kKMGT]i?B", found):
        raise ValueError(f"folder={found!r} is a size: write .cache(memory={found!r})")
    return found


def _checked_name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {short(name)} ({type(name).__name__})")
    if not re.fullmatch(r"[\w.-]*\w[\w.-]*", name):
        raise ValueError(f"name must consist of letters, digits, '-', '_' and '.', not {short(name)}")
    return name
