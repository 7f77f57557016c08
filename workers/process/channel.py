"""Exchanges messages and file descriptors between two processes over a private pair of sockets.

A message is sent as a frame: a header (length, number of descriptors), the identity of each descriptor, and the pickled
message. Readers take whole frames only, so a frame that a killed process had half sent is dropped. The sockets have no
address to connect to, so nothing that is unpickled here can come from another program.

The kernel delivers descriptors beside the bytes, and each frame takes as many of them as its header says. If one were
lost unnoticed, each later frame would get descriptors of another frame, and so the memory of other batches. Therefore a
lost descriptor is an error, and so is one with the wrong identity. A frame with more descriptors than the kernel takes
in one call is sent in several steps, each with some of its bytes.
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
_IDENTITY = struct.Struct("<Q")  # of one descriptor
_TIME = struct.Struct("ll")  # seconds and microseconds
_READ_NBYTES = 1 << 18
_AT_A_TIME = 250  # descriptors; the kernel takes at most 253
_ANCILLARY_NBYTES = socket.CMSG_SPACE(_AT_A_TIME * array.array("i").itemsize)

#: The kernel's errors if it refuses a message for now: too many descriptors are in flight, or memory is short.
_REFUSALS = frozenset({errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})
_LOST = int(socket.MSG_CTRUNC)  # as an int: "&" with a member of the enum takes 1 us
REFUSED_S = 0.01  # to wait before a refused message is sent again

# Both are 0 on macOS, and not needed: Python ignores SIGPIPE, and _read() makes the descriptors close-on-exec.
_SEND_FLAGS: int = getattr(socket, "MSG_NOSIGNAL", 0)
_RECEIVE_FLAGS: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class _Unsent(NamedTuple):
    """A frame (a message as bytes, with its file descriptors), or the part of it that the kernel has not taken yet."""

    frame: memoryview
    files: tuple[int, ...]
    owner: Any  # keeps the files open; None if they are copies, which the channel closes


class Channel:
    """One end of a socket pair by which two processes exchange messages (tuples) and file descriptors."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._in = bytearray()
        self._descriptors: deque[int] = deque()  # received, but not yet handed out with their frame, e.g. [17, 18]
        self._out: deque[_Unsent] = deque()
        self._is_ahead = False  # something was read while a message was being sent
        self._is_broken = False  # descriptors were lost, so later messages would get the wrong ones
        self.is_idle = False  # the last receive() found nothing
        self.is_held = False  # nothing is sent for now: see hold()
        self.is_refused = False  # the kernel refuses the first of _out for now, though the socket is writable

    def wake_after(self, seconds: int) -> None:
        """Make :meth:`receive` on a blocking socket return an empty list after ``seconds`` without a message."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIME.pack(seconds, 0))

    def fileno(self) -> int:
        return self.socket.fileno()

    @property
    def has_unsent(self) -> bool:
        return bool(self._out)

    def send(self, message: tuple[Any, ...], descriptors: Iterable[int] = (), owner: Any = None) -> None:
        """Send ``message`` and copies of ``descriptors``. What the kernel does not take now is left for :meth:`flush`.

        Blocks: on a blocking socket, until the kernel has taken everything; never on a non-blocking one.

        Args:
            descriptors: the file descriptors to send. Without an ``owner``, the caller may close them after the call.
            owner: an object that keeps the descriptors open while it lives, so that they need not be duplicated until
                they are sent.

        Raises:
            ConnectionError: the other end is gone. OSError: the message cannot be sent for another reason.
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
        """Send a small ``message`` without waiting, even on a blocking socket. Return True if the kernel has taken it.

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
        while sent < len(frame):  # never on Linux, which takes a small message whole
            sent += self.socket.send(frame[sent:], _SEND_FLAGS)
        return True

    def _send_some(self, frame: memoryview, files: tuple[int, ...]) -> tuple[memoryview, tuple[int, ...]]:
        """Send as much of a frame (a message as bytes, with its descriptors) as the kernel takes now.

        On a blocking socket, wait until the kernel has taken all of it.

        Returns:
            The bytes and the descriptors that remain to be sent.
        """
        self.is_refused = False
        while frame:
            try:
                if files:
                    # Leave bytes for the next step: descriptors can only be sent together with bytes.
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
        """Read what has arrived, and keep it for the next :meth:`receive`. Blocks: never.

        This prevents a deadlock: if both ends have too many descriptors in flight, neither can send until one reads.
        """
        try:
            if not self._read(socket.MSG_DONTWAIT):
                raise BrokenPipeError(errno.EPIPE, "the other end is gone")
            self._is_ahead = True
        except BlockingIOError:
            pass

    def hold(self) -> None:
        """Queue all messages until :meth:`let_go` instead of sending them, because the receiver has not started yet.

        The kernel limits how many descriptors may be in flight. If unread messages reached the limit, the descriptors
        that the receiver needs to start could not be sent.
        """
        self.is_held = True

    def let_go(self) -> None:
        """Send the messages queued since :meth:`hold`, and stop queueing, because the receiver has started.

        Raises:
            ConnectionError: the other end is gone.
        """
        self.is_held = False
        self.flush()

    def flush(self) -> None:
        """Send queued messages, or as much of them as the kernel takes now. Do nothing while messages are held back."""
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
        """Return the messages that have arrived, as (message, its descriptors). The caller must close the descriptors.

        The list may be empty. Blocks: on a blocking socket, until some bytes arrive; never on a non-blocking one.

        Raises:
            EOFError: the other end is gone, and everything that it sent has been received.
            PlatformError: descriptors were lost, so no later message can be received.
            IntegrityError: a descriptor is not the one that was sent with its message.
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
        """Read some bytes, and the descriptors sent with them, for :meth:`_frames`. Return False if no more can come.

        ``flags`` are passed to ``recvmsg``, e.g. ``MSG_DONTWAIT``.

        Raises:
            BlockingIOError: nothing has arrived. PlatformError: descriptors were lost.
        """
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
                "descriptors sent with a message were lost: this process has reached its limit of "
                f"{limits.descriptors()} open files (ulimit -n)",
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
        """Raise IntegrityError unless the next received descriptors are the ones that were sent with the frame.

        ``packed`` holds 8 bytes for each: the inode that it must refer to, or 0 if it is not shared memory.
        """
        files = islice(self._descriptors, len(packed) // _IDENTITY.size)
        for file, (identity,) in zip(files, _IDENTITY.iter_unpack(packed), strict=True):
            if _identity(file) != identity:
                raise integrity_error(f"descriptor {file} refers to inode {_identity(file)} instead of {identity}")

    def close(self) -> None:
        """Close the socket, the copies of descriptors not sent yet, and received descriptors not handed out yet."""
        self.socket.close()
        for _, files, owner in self._out:
            if owner is None:
                _close_all(files)
        _close_all(self._descriptors)
        self._out.clear()
        self._descriptors.clear()


def _identity(file: int) -> int:
    """Return the inode number of the shared memory that descriptor ``file`` refers to; 0 if it is not shared memory."""
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
            f"{os.strerror(error.errno or 0)} (of {limits.descriptors()}, ulimit -n), to copy a message's descriptors",
        ) from error
    return tuple(copies)


def _close_all(files: Iterable[int]) -> None:
    for file in files:
        os.close(file)


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected Unix sockets. Programs started later do not inherit them."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
