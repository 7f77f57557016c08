"""Shows a pool's figures to observers such as ``workers.top``, on a page of anonymous shared memory.

The page is in no file system, so it cannot be left behind. The program keeps its descriptor open, and the kernel shows
the descriptor in /proc: ``/proc/4711/fd/9`` is a link to ``/memfd:prefetch-figures (deleted)``. Anyone who may read
this folder of the program can find its pages there and read them, unnoticed by the program.

The page is a seqlock, so the writer never waits: the first word is odd during a write, and a reader that finds it odd,
or changed after reading, reads again. The checksum is for processors whose cores may see writes in another order.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Any, TypedDict, cast

from workers.batch import shared_memory

NAME = "prefetch-figures"
LINK = f"/memfd:{NAME} (deleted)"

_NBYTES = 64 << 10  # of a new page; about 400 workers fit
_SEQUENCE, _LENGTH, _CHECKSUM = range(3)
_HEAD = struct.Struct("3q")
_MAX_TRIES = 1000  # to read during a write, which takes a few microseconds


class LaneSnapshot(TypedDict):
    """The figures of one worker in a snapshot of its pool, together with those of workers that it has replaced."""

    number: int
    pid: int | None  # None if it is a thread or is not running now
    state: str  # "starting", "ready", "ended"
    jobs: int  # finished
    busy_ns: int  # in finished jobs
    restarts: int
    epoch: int | None  # of its current job; None if it is idle
    index: int | None
    since_ns: int  # when that job began (monotonic)


class Snapshot(TypedDict):
    """The figures of a pool of workers at one moment. Cumulative figures start when the front-end is created."""

    pid: int  # of the program
    program: str  # how it was started: "train.py", "-c", "notebook"
    name: str  # short description of what the pool computes: "<Crops: 40 batches>"
    since: float  # when the pool was started, in seconds of time.time()
    at_ns: int  # when this snapshot was taken (monotonic)
    epoch: int
    batch: int  # delivered in this epoch
    length: int | None  # batches in an epoch; None if unknown
    executor: str  # "process", "thread", "ray"
    nb_workers: int
    bound: int  # maximum number of batches ahead of the loop
    ready: int  # finished batches that wait for the loop
    batches: int  # delivered, cumulative
    nbytes: int  # of batches that workers have finished, cumulative
    wait_ns: int  # time that the loop has waited for batches, cumulative, including a current wait
    workers: list[LaneSnapshot]
    choice: str  # the last decision of nb_workers="auto", and why; "" if there is none


class SnapshotPage:
    """The writer of the page on which a pool of workers shows its figures to observers.

    It does nothing if there is no memfd (outside Linux) or no free descriptor, as figures are not worth an error. In a
    forked copy of the program, it does not write to the page either.

    Runs in: one thread, which also closes it. Blocks: never.
    """

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._descriptor = -1
        if hasattr(os, "memfd_create"):
            with contextlib.suppress(OSError):
                self._descriptor = shared_memory.create(_NBYTES, NAME)
                self._map(_NBYTES)

    def publish(self, snapshot: Snapshot) -> None:
        """Write ``snapshot`` to the page, so that readers see it. Takes 10 us for 2 workers, 100 us for 64."""
        if self._descriptor < 0 or self._owner != os.getpid():
            return
        text = json.dumps(snapshot, separators=(",", ":")).encode()
        try:
            self._make_room(_HEAD.size + len(text))
        except (OSError, MemoryError):
            return
        words = self._words
        words[_SEQUENCE] = sequence = (words[_SEQUENCE] + 1) | 1  # odd, even if an interrupted write has left it odd
        words[_LENGTH] = len(text)
        words[_CHECKSUM] = zlib.crc32(text)
        self._bytes[_HEAD.size : _HEAD.size + len(text)] = text
        words[_SEQUENCE] = sequence + 1

    def close(self) -> None:
        """Close the page, so that observers no longer find it. Further calls of any method do nothing."""
        if self._descriptor >= 0:
            # Forgotten before it is closed: the user's next open file may get the same number.
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
            del self._bytes, self._words

    def _make_room(self, nbytes: int) -> None:
        if nbytes > len(self._bytes):
            nbytes = 1 << nbytes.bit_length()
            os.ftruncate(self._descriptor, nbytes)
            self._map(nbytes)

    def _map(self, nbytes: int) -> None:
        self._bytes = shared_memory.view(shared_memory.attach(self._descriptor, nbytes))
        self._words = self._bytes.cast("q")


class SnapshotReader:
    """The reader of a page on which process ``pid`` shows the figures of a pool of workers.

    The page is read, not mapped: a mapped file that is then shortened could crash the reader.

    Args:
        pid: the process.
        number: the page's file descriptor in that process.

    Raises:
        OSError: the page no longer exists, or may not be read.
    """

    def __init__(self, pid: int, number: int) -> None:
        self._path = f"/proc/{pid}/fd/{number}"
        # The number may belong to another file by now, a pipe perhaps: opening it must not block.
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        self.inode = os.fstat(self._descriptor).st_ino  # unique to this page

    def is_there(self) -> bool:
        """Return True if the process still has this page open."""
        try:
            return os.stat(self._path).st_ino == self.inode
        except OSError:
            return False

    def read(self) -> Snapshot | None:
        """Return the last published snapshot; None if there is none that this version of the package can read."""
        for _ in range(_MAX_TRIES):
            try:
                text = self._text()
                return None if text is None else _whole(json.loads(text))
            except _Torn:
                time.sleep(0)
            except (OSError, ValueError):  # not a page of ours
                return None
        return None

    def close(self) -> None:
        os.close(self._descriptor)

    def _text(self) -> bytes | None:
        head = os.pread(self._descriptor, _HEAD.size, 0)
        if len(head) < _HEAD.size or not any(head):
            return None  # nothing has been written yet
        sequence, length, checksum = _HEAD.unpack(head)
        if sequence % 2 or not 0 < length < os.fstat(self._descriptor).st_size:
            raise _Torn
        text = os.pread(self._descriptor, length, _HEAD.size)
        if os.pread(self._descriptor, _HEAD.size, 0) != head or zlib.crc32(text) != checksum:
            raise _Torn
        return text


class _Torn(Exception):
    """The error raised if the page is written while it is read, so that it must be read again."""


def _whole(found: Any) -> Snapshot | None:
    """Return ``found`` if it has all keys of a Snapshot, and its workers have all keys of a LaneSnapshot; else None."""
    if not _has_all(found, Snapshot) or not isinstance(found["workers"], list):
        return None
    return cast(Snapshot, found) if all(_has_all(each, LaneSnapshot) for each in found["workers"]) else None


def _has_all(found: Any, kind: type) -> bool:
    return isinstance(found, dict) and kind.__annotations__.keys() <= found.keys()


def owner(pid: int) -> int:
    """Return the id of the user that process ``pid`` runs as. Raise OSError if there is no such process."""
    return os.stat(f"/proc/{pid}").st_uid


def pages(pid: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield (process id, descriptor number) of each page with a pool's figures that processes of this user have open.

    A fork of a program has the program's pages open, too; ``Snapshot["pid"]`` says which process writes to a page.

    Args:
        pid: the only process to search; None for all.
    """
    for process in [pid] if pid is not None else [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        try:
            numbers = os.listdir(f"/proc/{process}/fd") if owner(process) == os.geteuid() else []
        except OSError:  # it has ended, or is not accessible
            continue
        for number in numbers:
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{process}/fd/{number}") == LINK:
                    yield process, int(number)
