"""``MemoryStore``: keeps items in shared memory that all worker processes write and read, without any lock.

The memory has three parts: a token, a table with the place of each item, and the items themselves. To get space for an
item, a process appends a claim (a random number and the size) to a log file. The kernel appends claims one after the
other, and so all processes find the same space for each claim. An item is entered in the table once it is completely
written. If a process is killed before that, only the space of this one item is lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import logging
import os
import sys
import weakref
from typing import Any

import numpy as np

from workers.batch import shared_memory
from workers.errors import PlatformError
from workers.job.context import is_in_worker_process

from .packed import ALIGNMENT, Packed, aligned, pack, unpack

logger = logging.getLogger("workers")

_TOKEN_NBYTES = 16  # as many as a claim
_PLACE_NBYTES = 8  # of an entry of the table: the item's offset / ALIGNMENT + 1; 0 if it is not kept
_CLAIM_NBYTES = 16
_CLAIMS_READ = 4096  # at a time
_MAX_PARTS = 256  # of one writev()


class MemoryStore:
    """Items with the keys 0 to ``num_keys`` - 1 in shared memory. What fits into ``nbytes`` is kept, and stays.

    A pickled store refers to the same memory as long as the process that has created it lives on the same machine. Else
    None is unpickled.
    """

    def __init__(self, num_keys: int, nbytes: int, token: bytes | None = None) -> None:
        """Create the memory, which takes space only as it is written to.

        ``token``: what identifies the store on this machine; None to draw it.

        Raises:
            DoesNotFit: more than the available memory.
        """
        if not hasattr(os, "memfd_create") or not os.path.isdir("/proc/self/fd"):
            raise PlatformError(f".cache() in memory needs Linux, not {sys.platform}: give a folder, .cache(folder)")
        self.num_keys, self.capacity = num_keys, nbytes
        token = token or os.urandom(_TOKEN_NBYTES)
        items_name, log_name = _names(token)
        self._set_up(shared_memory.create(self._nbytes(), items_name), _new_log(log_name), token)
        os.pwrite(self._file, token, 0)
        os.write(self._log, token)

    def _set_up(self, file: int, log: int, token: bytes) -> None:
        self._file, self._log, self._token = file, log, token
        self.close = weakref.finalize(self, _close, file, log)
        memory = shared_memory.view(shared_memory.attach(file, self._nbytes(), writable=False)).toreadonly()
        at = aligned(_TOKEN_NBYTES)
        self._places = np.frombuffer(memory, np.uint64, self.num_keys, at)
        self._items = memory[self._start :]
        # (the number of log entries read, with the token; the end of the space in use). Replaced as a whole.
        self._claimed = 1, 0

    @property
    def _start(self) -> int:
        return aligned(aligned(_TOKEN_NBYTES) + _PLACE_NBYTES * self.num_keys)

    def _nbytes(self) -> int:
        return self._start + self.capacity

    def __reduce__(self) -> Any:
        return _opened, (os.getpid(), self._file, self._log, self._token, self.num_keys, self.capacity)

    def get(self, key: int) -> list[Any] | None:
        """Return the items with ``key``, whose arrays are read-only views of the memory; None if they are not kept."""
        place = int(self._places[key]) if key < self.num_keys else 0
        return unpack(key, self._items[(place - 1) * ALIGNMENT :]) if place else None

    def put(self, key: int, items: list[Any]) -> bool:
        """Keep ``items``, if there is space left. Return True if they are kept."""
        if key >= self.num_keys or self._places[key]:
            return key < self.num_keys
        packed = pack(key, items, False)
        start = self._claim(packed.nbytes)
        if start is None:
            return False
        _write(self._file, packed, self._start + start)
        os.pwrite(
            self._file,
            (start // ALIGNMENT + 1).to_bytes(_PLACE_NBYTES, sys.byteorder),
            aligned(_TOKEN_NBYTES) + _PLACE_NBYTES * key,
        )
        return True

    @property
    def nbytes(self) -> int:
        """The bytes in use."""
        return self._read_claims()[0]

    @property
    def num_items(self) -> int:
        """The number of keys whose items are kept."""
        return int(np.count_nonzero(self._places))

    def _claim(self, nbytes: int) -> int | None:
        """Return the start of ``nbytes`` bytes that only the caller may write to; None if there is no space left."""
        if self._read_claims()[0] + nbytes > self.capacity:
            return None
        before, token = self._claimed, os.urandom(_CLAIM_NBYTES - 8)
        os.write(self._log, token + nbytes.to_bytes(8, "little"))
        return self._read_claims(token, before)[1]

    def _read_claims(self, token: bytes = b"", since: tuple[int, int] | None = None) -> tuple[int, int | None]:
        """Read the claims that have come since the last call, or those behind ``since``: another thread may have read
        them. Return (the end of the space that is in use, the start of the space that the claim with ``token`` has got;
        None if it has got none)."""
        number, end = since or self._claimed
        found = None
        while True:
            claims = os.pread(self._log, _CLAIM_NBYTES * _CLAIMS_READ, number * _CLAIM_NBYTES)
            for at in range(0, len(claims) - _CLAIM_NBYTES + 1, _CLAIM_NBYTES):
                nbytes = int.from_bytes(claims[at + 8 : at + 16], "little")
                number += 1
                if end + nbytes > self.capacity:
                    continue
                if claims[at : at + 8] == token:
                    found = end
                end += nbytes
            if len(claims) < _CLAIM_NBYTES * _CLAIMS_READ:
                break
        self._claimed = number, end
        return end, found


def _names(token: bytes) -> tuple[str, str]:
    """Return the names of the memory and of the log of a store, which Linux shows in ``/proc/PID/fd``."""
    return f"prefetch-cache-{token.hex()}", f"prefetch-claims-{token.hex()}"


def _new_log(name: str) -> int:
    file = os.memfd_create(name, os.MFD_CLOEXEC)
    fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | os.O_APPEND)
    return file


def _close(*files: int) -> None:
    for file in files:
        with contextlib.suppress(OSError):
            os.close(file)


def _write(file: int, packed: Packed, offset: int) -> None:
    """Write ``packed`` to ``file`` at ``offset``."""
    left = [memoryview(part).cast("B") for part in packed.parts if memoryview(part).nbytes]
    while left:
        written = os.pwritev(file, left[:_MAX_PARTS], offset)
        offset += written
        while left and written >= left[0].nbytes:
            written -= left.pop(0).nbytes
        if written:
            left[0] = left[0][written:]


def _opened(pid: int, file: int, log: int, token: bytes, num_keys: int, capacity: int) -> MemoryStore | None:
    """Open the store that process ``pid`` has created; None if it no longer exists.

    A worker on another machine opens the store that another worker has created there, or creates it.
    """
    files = _open((f"/proc/{pid}/fd/{file}", f"/proc/{pid}/fd/{log}"), token)
    if files is None and is_in_worker_process():
        files = _find(token)
        if files is None:
            try:
                return MemoryStore(num_keys, capacity, token)
            except (MemoryError, PlatformError) as error:
                logger.warning("nothing is cached on this machine: %s", error)
                return None
    if files is None:
        return None
    store = MemoryStore.__new__(MemoryStore)
    store.num_keys, store.capacity = num_keys, capacity
    store._set_up(*files, token)
    return store


def _open(paths: tuple[str, str], token: bytes) -> tuple[int, int] | None:
    """Open the memory and the log of a store; return their descriptors, or None if these files are others."""
    opened: list[int] = []
    try:
        for path, flags in zip(paths, (0, os.O_APPEND), strict=True):
            opened.append(os.open(path, os.O_RDWR | os.O_CLOEXEC | flags))
            if os.pread(opened[-1], len(token), 0) != token:
                raise FileNotFoundError("another file, as the number of a closed one is used again")
    except OSError:
        _close(*opened)
        return None
    return opened[0], opened[1]


def _find(token: bytes) -> tuple[int, int] | None:
    """Open the store with ``token`` by the descriptors of any process on this machine; return None if none has it."""
    wanted = [f"/memfd:{name} (deleted)" for name in _names(token)]
    for folder in glob.glob("/proc/[0-9]*/fd"):
        found: dict[str, str] = {}
        with contextlib.suppress(OSError):  # the process has ended, or is another user's
            for number in os.listdir(folder):
                path = f"{folder}/{number}"
                with contextlib.suppress(OSError):
                    found[os.readlink(path)] = path
        if all(name in found for name in wanted):
            files = _open((found[wanted[0]], found[wanted[1]]), token)
            if files is not None:
                return files
    return None
