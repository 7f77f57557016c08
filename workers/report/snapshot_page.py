"""A pool's figures for whoever looks on from outside (``workers.top``): a page of anonymous shared memory.

The page has no name to be opened or left behind. Its descriptor stays open in the program, and the kernel shows that:
``/proc/4711/fd/9`` is a link to ``/memfd:prefetch-figures (deleted)``. Who may look into the program's folder in /proc
finds its pages there and reads them, and the program does not notice.

The writer waits for nobody (a seqlock): the page's first word is odd while it writes, and a reader that has seen it odd
or changed reads again. The checksum is for processors that let others see writes in another order.
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
_MAX_TRIES = 1000  # to read what is being written; one writing takes a few microseconds


class LaneSnapshot(TypedDict):
    """A worker, and those that came in its place. Counts go on over all of them."""

    number: int
    pid: int | None  # None: a thread, or none runs now
    state: str  # "starting", "ready", "ended"
    jobs: int  # finished
    busy_ns: int  # in jobs that are finished
    restarts: int
    epoch: int | None  # of the job that it is in; None: it is in none
    index: int | None
    since_ns: int  # when that began, of the monotonic clock


class Snapshot(TypedDict):
    """A pool at one moment. What is cumulative is told since the pool began."""

    pid: int  # of the program
    program: str  # how it was started: "train.py", "-c", "notebook"
    name: str  # what the pool computes, in short: "<Crops: 40 batches>"
    since: float  # when the pool began, as time.time() has it
    at_ns: int  # of this snapshot, of the monotonic clock
    epoch: int
    batch: int  # delivered in this epoch
    length: int | None  # batches in an epoch; None: not known
    executor: str  # "process", "thread", "serial"
    nb_workers: int
    bound: int  # most batches ahead of the loop
    ready: int  # batches that are finished and wait for the loop
    batches: int  # delivered, cumulative
    nbytes: int  # of these
    wait_ns: int  # of the loop for batches, cumulative, with the wait that it is in now
    workers: list[LaneSnapshot]
    choice: str  # the last one of nb_workers="auto", and why; "": none


class SnapshotPage:
    """The page of one pool, where it is written. It does nothing where there is no memfd (not on Linux), or when no
    descriptor is left: figures are not worth an error. Nor does a fork of the program write into its page.

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
        """Have readers see ``snapshot`` from now on. It takes 10 us for 2 workers, 100 us for 64."""
        if self._descriptor < 0 or self._owner != os.getpid():
            return
        text = json.dumps(snapshot, separators=(",", ":")).encode()
        try:
            self._make_room(_HEAD.size + len(text))
        except (OSError, MemoryError):
            return
        words = self._words
        words[_SEQUENCE] = sequence = (words[_SEQUENCE] + 1) | 1  # odd also if an interrupt has left it so
        words[_LENGTH] = len(text)
        words[_CHECKSUM] = zlib.crc32(text)
        self._bytes[_HEAD.size : _HEAD.size + len(text)] = text
        words[_SEQUENCE] = sequence + 1

    def close(self) -> None:
        """It may be repeated."""
        if self._descriptor >= 0:
            # First forgotten: the number may soon be that of a file of the user's.
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
    """A page of process ``pid``, where it is read: by system calls alone, which cannot crash whatever the file is.

    Args:
        number: of the page's descriptor in that process.

    Raises:
        OSError: it is not there any more, or may not be read.
    """

    def __init__(self, pid: int, number: int) -> None:
        self._path = f"/proc/{pid}/fd/{number}"
        # By now it may be something else, of which opening must not wait for anything.
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        self.inode = os.fstat(self._descriptor).st_ino  # no two pages have the same

    def is_there(self) -> bool:
        """Whether the process still has the page open."""
        try:
            return os.stat(self._path).st_ino == self.inode
        except OSError:
            return False

    def read(self) -> Snapshot | None:
        """The last snapshot; None: there is none, or it is of another version of this package."""
        for _ in range(_MAX_TRIES):
            try:
                text = self._text()
                return None if text is None else _whole(json.loads(text))
            except _Torn:
                time.sleep(0)
            except (OSError, ValueError):  # no such page as ours
                return None
        return None

    def close(self) -> None:
        os.close(self._descriptor)

    def _text(self) -> bytes | None:
        head = os.pread(self._descriptor, _HEAD.size, 0)
        if len(head) < _HEAD.size or not any(head):
            return None  # nothing was written yet
        sequence, length, checksum = _HEAD.unpack(head)
        if sequence % 2 or not 0 < length < os.fstat(self._descriptor).st_size:
            raise _Torn
        text = os.pread(self._descriptor, length, _HEAD.size)
        if os.pread(self._descriptor, _HEAD.size, 0) != head or zlib.crc32(text) != checksum:
            raise _Torn
        return text


class _Torn(Exception):
    """It was being written."""


def _whole(found: Any) -> Snapshot | None:
    """``found`` if it has all that a snapshot has."""
    if not _has_all(found, Snapshot) or not isinstance(found["workers"], list):
        return None
    return cast(Snapshot, found) if all(_has_all(each, LaneSnapshot) for each in found["workers"]) else None


def _has_all(found: Any, kind: type) -> bool:
    return isinstance(found, dict) and kind.__annotations__.keys() <= found.keys()


def owner(pid: int) -> int:
    """The user as whom process ``pid`` runs. Raises OSError: there is no such process."""
    return os.stat(f"/proc/{pid}").st_uid


def pages(pid: int | None = None) -> Iterator[tuple[int, int]]:
    """(process, number of the descriptor) of the pages that processes of this user have open; of ``pid`` alone.

    A process that was forked by a program has the program's pages open too: ``Snapshot["pid"]`` says whose it is.
    """
    for process in [pid] if pid is not None else [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        try:
            numbers = os.listdir(f"/proc/{process}/fd") if owner(process) == os.geteuid() else []
        except OSError:  # it has ended, or does not let itself be looked at
            continue
        for number in numbers:
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{process}/fd/{number}") == LINK:
                    yield process, int(number)
