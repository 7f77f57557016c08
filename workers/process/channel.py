"""A private socket pair between two processes that carries messages and descriptors.

A frame is a header (length, number of descriptors), what identifies each descriptor, and a pickled message. Whoever
reads takes whole frames only: what a killed process had half sent is dropped with its socket. Only the two processes
that a pair was made for ever hold it, so nothing that is unpickled here can come from anybody else.

Descriptors travel beside the bytes and are counted off, frame by frame. If the kernel drops one, the others would be
taken for the wrong ones, and so for the memory of other batches. So both losses and mismatches are errors. More than
the kernel takes at a time go in several steps, each beside some bytes of the frame.
"""

from __future__ import annotations

import array
import errno
import os
import pickle
import socket
import stat
import struct
import time
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple

from workers import limits
from workers.errors import PlatformError, integrity_error

_HEADER = struct.Struct("<II")
_IDENTITY = struct.Struct("<Q")  # of a descriptor
_TIME = struct.Struct("ll")  # seconds and microseconds
_READ_NBYTES = 1 << 18
_AT_A_TIME = 250  # descriptors: the kernel takes 253
_ANCILLARY_NBYTES = socket.CMSG_SPACE(_AT_A_TIME * array.array("i").itemsize)

#: What the kernel refuses for the moment: more descriptors in flight than a user may have open, or no memory left.
_REFUSALS = frozenset({errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})
_LOST = int(socket.MSG_CTRUNC)  # "&" with the enumeration's member takes 1 us
REFUSED_S = 0.01  # until a refused message is sent again

# Not on macOS: there Python ignores SIGPIPE, and the descriptors are made close-on-exec right after.
_SEND_FLAGS: int = getattr(socket, "MSG_NOSIGNAL", 0)
_RECEIVE_FLAGS: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class _Unsent(NamedTuple):
    """What the kernel has not taken yet of a frame."""

    frame: memoryview
    files: tuple[int, ...]
    owner: Any  # keeps the files open; None: they are copies, to be closed


class Channel:
    """One end of a socket pair."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._in = bytearray()
        self._descriptors: deque[int] = deque()  # received, and not yet handed out with their frame
        self._out: deque[_Unsent] = deque()
        self._is_ahead = False  # something was read while a message was to be sent
        self._is_broken = False  # descriptors were lost: what comes next would be given the wrong ones
        self.is_idle = False  # nothing had come when it was looked at last
        self.is_held = False  # nothing is sent for now: see hold()
        self.is_refused = False  # the kernel refuses the first of these for now, though the socket is writable

    def wake_after(self, seconds: int) -> None:
        """Have :meth:`receive` return on a blocking socket, too, when nothing has come for so long."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIME.pack(seconds, 0))

    def fileno(self) -> int:
        return self.socket.fileno()

    @property
    def has_unsent(self) -> bool:
        return bool(self._out)

    def send(self, message: tuple[Any, ...], descriptors: Iterable[int] = (), owner: Any = None) -> None:
        """Send ``message`` with copies of ``descriptors``.

        Blocks: on a blocking socket, until the kernel has taken all. On a non-blocking one never: what it does
        not take now stays here for :meth:`flush`.

        Args:
            descriptors: the caller may close them afterwards, unless they have an owner.
            owner: an object that keeps them open for as long as it lives.

        Raises:
            ConnectionError: the other end is gone. OSError: it cannot be sent, for another reason.
        """
        payload = pickle.dumps(message, protocol=5)
        files = tuple(descriptors)
        identities = b"".join([_IDENTITY.pack(_identity(file)) for file in files]) if files else b""
        frame = memoryview(_HEADER.pack(len(payload), len(files)) + identities + payload)
        if not self._out and not self.is_held:
            frame, files = self._send_some(frame, files)
        if frame:
            self._out.append(_Unsent(frame, files if owner is not None else _copies(files), owner))

    def send_at_once(self, message: tuple[Any, ...]) -> bool:
        """Send a small ``message`` on a blocking socket if the kernel takes it now. Returns: whether it does.

        Raises:
            ConnectionError: the other end is gone.
        """
        payload = pickle.dumps(message, protocol=5)
        frame = memoryview(_HEADER.pack(len(payload), 0) + payload)
        try:
            sent = self.socket.send(frame, _SEND_FLAGS | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _REFUSALS:
                return False
            raise
        while sent < len(frame):  # not on Linux, which takes what is small as a whole
            sent += self.socket.send(frame[sent:], _SEND_FLAGS)
        return True

    def _send_some(self, frame: memoryview, files: tuple[int, ...]) -> tuple[memoryview, tuple[int, ...]]:
        """Send as much of a frame as the kernel takes now: what is left of it."""
        self.is_refused = False
        while frame:
            try:
                if files:
                    # Each step leaves bytes for the next, for descriptors do not go without.
                    part = frame if len(files) <= _AT_A_TIME else frame[: _AT_A_TIME * _IDENTITY.size]
                    sent = socket.send_fds(self.socket, [part], list(files[:_AT_A_TIME]), _SEND_FLAGS)
                    files = files[_AT_A_TIME:]
                else:
                    sent = self.socket.send(frame, _SEND_FLAGS)
                frame = frame[sent:]
                continue
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno not in _REFUSALS:
                    raise
            if not self.socket.getblocking():
                self.is_refused = True
                break
            if files:
                self._read_ahead()
            time.sleep(REFUSED_S)
        return frame, files

    def _read_ahead(self) -> None:
        """Read what is there, for the next :meth:`receive`. Two ends that both have too many descriptors on their way
        to the other would else wait for each other."""
        try:
            if not self._read(socket.MSG_DONTWAIT):
                raise BrokenPipeError(errno.EPIPE, "the other end is gone")
            self._is_ahead = True
        except BlockingIOError:
            pass

    def hold(self) -> None:
        """Keep what is sent here until :meth:`let_go`, while nobody reads at the other end: descriptors that are on
        their way count, and might keep those from being sent that whoever is to read needs to be started."""
        self.is_held = True

    def let_go(self) -> None:
        """Somebody reads at the other end.

        Raises:
            ConnectionError: the other end is gone.
        """
        self.is_held = False
        self.flush()

    def flush(self) -> None:
        """Send what is left, as far as the kernel takes it."""
        while self._out and not self.is_held:
            frame, files, owner = self._out[0]
            left, left_files = self._send_some(frame, files)
            if owner is None:
                _close_all(files[: len(files) - len(left_files)])
            if left:
                self._out[0] = _Unsent(left, left_files, owner)
                return
            self._out.popleft()

    def receive(self) -> list[tuple[tuple[Any, ...], list[int]]]:
        """The messages that are there, each with its descriptors, which are the caller's to close.

        Blocks: on a blocking socket, until something has come; never on a non-blocking one.

        Raises:
            EOFError: the other end is gone, and all that it sent was received before. PlatformError: descriptors were
                lost, and with them all that will come. IntegrityError: a descriptor is not the one that was sent with
                its message.
        """
        if self._is_ahead:
            self._is_ahead = False
            if frames := self._frames():
                return frames
        self.is_idle = False
        try:
            if not self._read(0):
                raise EOFError
        except BlockingIOError:
            self.is_idle = True
            return []
        return self._frames()

    def _read(self, flags: int) -> bool:
        """Read some bytes, and the descriptors that come with them. False: the other end is gone."""
        if self._is_broken:
            return False
        try:
            data, ancillary, flags, _ = self.socket.recvmsg(_READ_NBYTES, _ANCILLARY_NBYTES, _RECEIVE_FLAGS | flags)
        except ConnectionError:
            return False
        for _, _, content in ancillary:
            received = array.array("i")
            received.frombytes(content[: len(content) - len(content) % received.itemsize])
            for file in received:
                os.set_inheritable(file, False)
            self._descriptors.extend(received)
        if flags & _LOST:
            self._is_broken = True
            raise PlatformError(
                errno.EMFILE,
                "descriptors that came with a message were lost: this process has all the files open that it may, "
                f"{limits.descriptors()} (ulimit -n)",
            )
        self._in += data
        return bool(data)

    def _frames(self) -> list[tuple[tuple[Any, ...], list[int]]]:
        frames: list[tuple[tuple[Any, ...], list[int]]] = []
        at, end = 0, len(self._in)
        view = memoryview(self._in)
        while end - at >= _HEADER.size:
            length, num_files = _HEADER.unpack_from(view, at)
            start = at + _HEADER.size + num_files * _IDENTITY.size
            if end < start + length:
                break
            if num_files:
                self._check_identities(view[at + _HEADER.size : start])
            message = pickle.loads(view[start : start + length])
            frames.append((message, [self._descriptors.popleft() for _ in range(num_files)]))
            at = start + length
        view.release()
        del self._in[:at]
        return frames

    def _check_identities(self, packed: memoryview) -> None:
        """Raise an IntegrityError unless the next descriptors are of these files."""
        files = islice(self._descriptors, len(packed) // _IDENTITY.size)
        for file, (identity,) in zip(files, _IDENTITY.iter_unpack(packed), strict=True):
            if _identity(file) != identity:
                raise integrity_error(f"descriptor {file} is of file {_identity(file)}, not of {identity}")

    def close(self) -> None:
        """Close this end, and every descriptor that is on its way."""
        self.socket.close()
        for _, files, owner in self._out:
            if owner is None:
                _close_all(files)
        _close_all(self._descriptors)
        self._out.clear()
        self._descriptors.clear()


def _identity(file: int) -> int:
    """What identifies the shared memory that ``file`` is of; 0 for anything else."""
    status = os.fstat(file)
    return status.st_ino if stat.S_ISREG(status.st_mode) and not status.st_nlink else 0


def _copies(files: tuple[int, ...]) -> tuple[int, ...]:
    copies: list[int] = []
    try:
        for file in files:
            copies.append(os.dup(file))  # noqa: PERF401
    except OSError as error:
        _close_all(copies)
        raise PlatformError(
            error.errno,
            f"{os.strerror(error.errno or 0)} (of {limits.descriptors()}, ulimit -n), to keep what goes with a message",
        ) from error
    return tuple(copies)


def _close_all(files: Iterable[int]) -> None:
    for file in files:
        os.close(file)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, which no program that is started later inherits."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
