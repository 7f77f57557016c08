"""Messages and descriptors over a socket pair: whole, in order, and never a descriptor left behind."""

from __future__ import annotations

import errno
import os
import resource
import socket
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from workers.batch import shared_memory
from workers.errors import IntegrityError, PlatformError
from workers.process import channel as channels
from workers.process.channel import Channel


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    one, other = (Channel(sock) for sock in channels.pair())
    for end in (one, other):
        end.socket.setblocking(False)
    yield one, other
    one.close()
    other.close()


def told(end: Channel) -> list[Any]:
    return [message for message, _ in end.receive()]


def test_messages_come_whole_and_in_order(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    assert other.receive() == []
    for message in [("a", 1), (None, [b"x" * 1000]), ()]:
        one.send(message)
    assert told(other) == [("a", 1), (None, [b"x" * 1000]), ()]


def test_a_frame_that_comes_in_pieces(ends: tuple[Channel, Channel]) -> None:
    """Nothing is handed out before all of it is there."""
    one, other = ends
    one.send(("first",))
    length_of_first = len(other.socket.recv(1 << 16, socket.MSG_PEEK))
    one.send(("second", b"y" * 100))
    sent = other.socket.recv(1 << 16)
    pieces = Channel(one.socket)
    arrived: list[Any] = []
    for at in range(len(sent)):
        other.socket.send(sent[at : at + 1])
        arrived += told(pieces)
        assert bool(arrived) is (at + 1 >= length_of_first)
    assert arrived == [("first",), ("second", b"y" * 100)]


def test_more_than_the_kernel_takes_at_once(ends: tuple[Channel, Channel]) -> None:
    """What is left is kept, with copies of the descriptors, and goes by flush()."""
    one, other = ends
    large = os.urandom(3 << 20)
    out, into = os.pipe()
    one.send((large,), [into])
    assert one.has_unsent
    got: list[Any] = other.receive()  # now there is room again, but nothing overtakes what waits
    one.send(("behind", 7), [into])
    os.close(into)  # the caller may
    while len(got) < 2:
        one.flush()
        got += other.receive()
    assert not one.has_unsent
    assert [message for message, _ in got] == [(large,), ("behind", 7)]
    for _, (copy,) in got:  # one each, though the first frame went in pieces
        os.write(copy, b"through")
        os.close(copy)
        assert os.read(out, 99) == b"through"
    assert os.read(out, 99) == b""  # nobody else has it open
    os.close(out)


def test_descriptors_go_with_their_message(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    pipes = [os.pipe() for _ in range(3)]
    one.send(("none",))
    one.send(("two",), [pipes[0][0], pipes[1][0]])
    one.send(("one",), [pipes[2][0]])
    received = []
    while len(received) < 3:
        received += other.receive()
    assert [(message[0], len(files)) for message, files in received] == [("none", 0), ("two", 2), ("one", 1)]
    files = [file for _, some in received for file in some]
    assert not any(map(os.get_inheritable, files))
    for number, (file, (_, into)) in enumerate(zip(files, pipes, strict=True)):
        os.write(into, b"%d" % number)
        assert os.read(file, 9) == b"%d" % number
    for file in [*files, *sum(pipes, ())]:
        os.close(file)


@pytest.mark.parametrize("number", [249, 250, 251, 500, 1001])
@pytest.mark.parametrize("is_owned", [False, True])
def test_any_number_of_descriptors(ends: tuple[Channel, Channel], number: int, is_owned: bool) -> None:
    """More than the kernel takes at a time go in steps, each one with its own message."""
    one, other = ends
    files = [memory(10) for _ in range(number)]
    owner = object() if is_owned else None
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    for name in ("first", "second"):
        one.send((name, b"x" * 400_000), files, owner)
    got: list[Any] = []
    while len(got) < 2:
        one.flush()
        got += other.receive()
    assert not one.has_unsent
    for _, received in got:
        assert [os.fstat(file).st_ino for file in received] == [os.fstat(file).st_ino for file in files]
        close_all(received)
    if before:
        assert len(os.listdir("/proc/self/fd")) == before
    close_all(files)


def test_an_owner_lives_until_its_descriptors_have_gone(ends: tuple[Channel, Channel]) -> None:
    class Owner:
        pass

    one, other = ends
    owner, file = Owner(), memory(10)
    gone = weakref.ref(owner)
    one.send((b"x" * (3 << 20),))
    one.send(("owned",), [file], owner)
    del owner
    assert gone() is not None
    got: list[Any] = []
    while len(got) < 2:
        one.flush()
        got += other.receive()
    assert gone() is None
    close_all([file, *got[1][1]])


def test_a_blocking_end_sends_any_number(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    for end in ends:
        end.socket.setblocking(True)
    files = [memory(10) for _ in range(600)]
    one.send(("many",), files)
    received = []
    while not received:
        received = other.receive()
    assert len(received[0][1]) == 600
    close_all([*files, *received[0][1]])


def test_a_closed_peer(ends: tuple[Channel, Channel]) -> None:
    """All that it sent is received first; a frame it had half sent is not."""
    one, other = ends
    one.send(("last",))
    one.socket.send(b"\x10\x00\x00\x00\x00half")
    one.close()
    assert told(other) == [("last",)]
    with pytest.raises(EOFError):
        other.receive()
    with pytest.raises(BrokenPipeError):
        other.send(("nobody hears",))


def test_close_closes_what_is_on_its_way() -> None:
    """Descriptors that wait to be sent, and such that came without the rest of their frame."""
    before = sorted(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else []
    one, other = (Channel(sock) for sock in channels.pair())
    one.socket.setblocking(False)
    out, into = os.pipe()
    one.send((b"x" * (3 << 20),), [out])  # its first piece takes the descriptor along
    one.send(("waits",), [into])
    other.receive()
    assert other._descriptors
    for end in (one, other):
        end.close()
    os.close(out)
    os.close(into)
    if before:
        assert sorted(os.listdir("/proc/self/fd")) == before


def memory(nbytes: int) -> int:
    return shared_memory.create(nbytes)


def close_all(files: Iterable[int]) -> None:
    for file in files:
        os.close(file)


def test_a_descriptor_that_is_lost(ends: tuple[Channel, Channel]) -> None:
    """The kernel drops those for which there is no room: else the next message's would be taken for them."""
    one, other = ends
    files = [memory(10), memory(20)]
    one.send(("both",), files)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    first = os.dup(files[0])  # the lowest number that is free
    os.close(first)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (first + 1, limits[1]))
        with pytest.raises(PlatformError, match=r"descriptors .* were lost: .*ulimit -n"):
            other.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    one.send(("next",), files)
    with pytest.raises(EOFError):  # what comes now would be given the wrong ones
        other.receive()
    close_all(files)


def test_a_descriptor_of_other_memory(ends: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is compared with the one that was sent along with its message."""
    one, other = ends
    files = [memory(10), memory(10)]
    send = socket.send_fds
    monkeypatch.setattr(socket, "send_fds", lambda sock, frame, some, flags: send(sock, frame, some[::-1], flags))
    one.send(("both",), files)
    with pytest.raises(IntegrityError, match="This is a bug in prefetch-sequence"):
        other.receive()
    monkeypatch.undo()
    close_all(files)


class Refusing:
    """A kernel that takes nothing, ``times`` times."""

    def __init__(self, code: int, times: int) -> None:
        self.code, self.left = code, times
        self.send = socket.send_fds

    def __call__(self, *arguments: Any) -> int:
        if self.left:
            self.left -= 1
            raise OSError(self.code, os.strerror(self.code))
        return self.send(*arguments)


@pytest.mark.parametrize("code", [errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM])
def test_what_the_kernel_refuses(ends: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """It is kept and sent again, and nothing overtakes it."""
    one, other = ends
    refusing = Refusing(code, 3)
    monkeypatch.setattr(socket, "send_fds", refusing)
    file = memory(10)
    one.send(("refused",), [file])
    one.send(("behind",))
    os.close(file)  # the caller may
    got: list[Any] = []
    while refusing.left:
        assert one.is_refused
        assert one.has_unsent
        assert other.receive() == []
        one.flush()
    one.flush()
    assert not one.has_unsent
    assert not one.is_refused
    while len(got) < 2:
        got += other.receive()
    assert [message for message, _ in got] == [("refused",), ("behind",)]
    close_all(file for _, files in got for file in files)


def test_a_blocking_end_waits_for_what_the_kernel_refuses(
    ends: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = ends
    one.socket.setblocking(True)
    refusing = Refusing(errno.ETOOMANYREFS, 3)
    monkeypatch.setattr(socket, "send_fds", refusing)
    file = memory(10)
    one.send(("refused",), [file])
    assert (refusing.left, one.has_unsent, one.is_refused) == (0, False, False)
    ((message, files),) = other.receive()
    assert message == ("refused",)
    close_all([file, *files])


def test_a_blocking_end_reads_while_it_waits(ends: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the other end has sent takes its descriptors off their way; it is handed out in order."""
    one, other = ends
    one.socket.setblocking(True)
    file = memory(10)
    other.send(("loaded",), [file])
    refusing = Refusing(errno.ETOOMANYREFS, 2)
    monkeypatch.setattr(socket, "send_fds", refusing)
    one.send(("result",), [file])
    assert len(one._descriptors) == 1
    monkeypatch.undo()
    other.send(("next",))
    ((first, files),) = one.receive()
    assert (first, told(one)) == (("loaded",), [("next",)])
    ((result, more),) = other.receive()
    assert result == ("result",)
    other.close()
    monkeypatch.setattr(socket, "send_fds", Refusing(errno.ETOOMANYREFS, 9))
    with pytest.raises(ConnectionError):
        one.send(("nobody hears",), [file])
    close_all([file, *files, *more])


def test_a_channel_that_is_held(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    one.hold()
    for message in [("first",), ("second",)]:
        one.send(message)
    one.flush()
    assert one.has_unsent
    assert told(other) == []
    one.let_go()
    assert not one.has_unsent
    assert told(other) == [("first",), ("second",)]


def test_a_small_message_that_is_refused(ends: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not taken, and the other end not taken for dead."""
    one, other = ends

    class Full:
        def send(self, *arguments: Any) -> int:
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    with monkeypatch.context() as patch:
        patch.setattr(one, "socket", Full())
        assert not one.send_at_once(("logged",))
    assert one.send_at_once(("logged",))
    assert told(other) == [("logged",)]


def test_another_error_is_raised(ends: tuple[Channel, Channel]) -> None:
    """A descriptor that is none, say: the message is not dropped in silence."""
    one, _ = ends
    file = memory(10)
    os.close(file)
    with pytest.raises(OSError, match="Bad file descriptor"):
        one.send(("nothing",), [file])


def test_pair_is_not_inherited() -> None:
    for sock in channels.pair():
        assert isinstance(sock, socket.socket)
        assert not sock.get_inheritable()
        sock.close()
