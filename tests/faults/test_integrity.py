"""What a worker sends, or is sent, is not what it should be: the loop ends with an error that says so.

Nothing of this can happen unless there is a bug in this package; so each test makes one.
"""

from __future__ import annotations

import errno
import itertools
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import have

from workers import IntegrityError, Sequence
from workers.batch import slot_writer
from workers.batch.slot_reader import SlotReader
from workers.batch.slot_writer import SlotWriter
from workers.cluster.actor import Answer, Items
from workers.engine.delivery import Delivery
from workers.process.worker_handle import WorkerHandle

ROOT = Path(__file__).resolve().parents[2]
BUG = "This is a bug in prefetch-sequence"
AT = 7


class Numbers(Sequence[Any]):
    """Its batches say of which epoch, index and state of the object they are."""

    def __init__(self, size: int = 10) -> None:
        super().__init__(seed=1)
        self.size = size
        self.version = 0

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Any:
        return np.full(self.size, index), self.epoch, self.version

    def on_epoch_end(self) -> None:
        self.version += 1
        self.weights = np.full(20_000, self.version)  # sent anew, with a descriptor


SIZES = pytest.mark.parametrize("size", [10, 50_000], ids=["copied", "leased"])


def read_until_it_ends(batches: Any) -> int:
    """The number of batches before the error. Each is right."""
    right: list[bool] = []
    with pytest.raises(IntegrityError, match=BUG):
        right.extend((x == index).all() for index, (x, _, _) in enumerate(batches))
    assert all(right)
    return len(right)


def read_on(batches: Any) -> None:
    """Until jobs are sent behind slots that the loop has let go of, which is where these are looked at."""
    for _ in itertools.chain.from_iterable(itertools.repeat(batches, 100)):
        pass


# -- made in the worker, which runs what is sent along with the sequence


class Mislabelled(Numbers):
    """From batch AT on, each is labelled for another job."""

    def __getitem__(self, index: int) -> Any:
        if index == AT:
            write = SlotWriter.write
            SlotWriter.write = lambda self, result, sending: write(self, result, sending + 1)  # type: ignore[method-assign]
        return super().__getitem__(index)


class Renumbered(Numbers):
    """Layouts are numbered again and again, as they once were, instead of named by their digest."""

    def __getitem__(self, index: int) -> Any:
        slot_writer.digest_of = lambda pickled: 5  # type: ignore[assignment]
        return np.full(self.size + index, index), self.epoch, self.version


class Overwritten(Numbers):
    """Slots are given out again before the loop has let go of them."""

    def __getitem__(self, index: int) -> Any:
        from workers.batch import slot_writer

        writer = slot_writer.writer
        if writer is not None:
            writer._free.take_all()
            for slot in writer._slots.values():
                writer._free.add(slot)
            writer._block = None
        return super().__getitem__(index)


@SIZES
@pytest.mark.parametrize("kind", [Mislabelled, Renumbered])
@pytest.mark.parametrize("in_order", [True, False])
def test_a_wrong_batch_is_not_delivered(kind: Callable[[int], Numbers], size: int, in_order: bool) -> None:
    with kind(size).prefetch(1, in_order=in_order) as batches:
        assert read_until_it_ends(batches) <= (AT if kind is Mislabelled else 24)
        with pytest.raises(IntegrityError, match=BUG):  # and not the next time
            next(iter(batches))


@pytest.mark.parametrize("executor", ["process", "thread"])
@pytest.mark.parametrize("chain", [lambda seq: seq, lambda seq: seq.shuffle(), lambda seq: seq.shard(1, 2)])
def test_the_outcomes_of_two_batches_are_swapped(
    monkeypatch: pytest.MonkeyPatch, executor: str, chain: Callable[[Any], Any]
) -> None:
    """Each is whole, and comes in the place of the other."""
    take, waiting = Delivery.take, []

    def swapped(self: Delivery) -> Any:
        waiting.extend(take(self))
        if len(waiting) < 2:
            return []
        first, second, *others = waiting
        waiting.clear()
        return [second, first, *others]

    monkeypatch.setattr(Delivery, "take", swapped)
    with chain(Numbers()).prefetch(2, executor=executor) as batches:
        message = r"batch \d+ of epoch 0 has come for batch \d+"
        with pytest.raises(IntegrityError, match=message):
            list(batches)


def test_slots_that_are_given_out_too_early() -> None:
    """Before they are read. While the loop holds them: it learns of it when it lets go of them."""
    with Overwritten(10).prefetch(1) as batches:
        read_until_it_ends(batches)
    with Overwritten(50_000).prefetch(1) as batches, pytest.raises(IntegrityError, match=BUG):
        read_on(batches)


def test_slots_that_are_released_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker says so, instead of just ending: its next one would be told the same."""
    take_freed = SlotReader.take_freed
    monkeypatch.setattr(SlotReader, "take_freed", lambda self: take_freed(self) * 2)
    with Numbers(50_000).prefetch(1) as batches:
        message = rf"slot \d+ was released, but the reader does not have it\. {BUG}"
        with pytest.raises(IntegrityError, match=message):
            read_on(batches)


def test_auto_does_not_go_on_alone() -> None:
    """What was delivered before may be wrong as well: it is not passed over with a warning."""
    with Mislabelled().prefetch() as batches:
        have(batches, 1)
        assert read_until_it_ends(batches) <= AT


def test_skipping_errors_does_not_skip_this() -> None:
    with Mislabelled().prefetch(1, on_error="skip") as batches:
        assert read_until_it_ends(batches) <= AT


# -- replicas


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_job_on_a_replica_that_the_worker_does_not_have(monkeypatch: pytest.MonkeyPatch, on_error: Any) -> None:
    """The message with the new replica is lost. The jobs behind it name it, and the worker says that it has another."""
    send, num_lost = WorkerHandle.load, 0

    def lose(self: WorkerHandle, number: int, *arguments: Any) -> None:
        nonlocal num_lost
        if number < 2:
            send(self, number, *arguments)
        else:
            num_lost += 1

    monkeypatch.setattr(WorkerHandle, "load", lose)
    with Numbers().prefetch(1, on_error=on_error) as batches:
        for epoch in range(2):
            assert [(at, version) for _, at, version in batches] == [(epoch, epoch)] * 24
        with pytest.raises(IntegrityError, match=rf"batch 0 of epoch 2 belongs to replica 2 .* has replica 1\. {BUG}"):
            next(iter(batches))
    assert num_lost == 1


class Refusing:
    """The kernel refuses each message with descriptors, some times, before it takes it."""

    def __init__(self, times: int) -> None:
        self.times = self._left = times
        self.num_refused = 0

    def __call__(self, sock: socket.socket, buffers: Any, files: Any, flags: int = 0) -> int:
        if self._left:
            self._left -= 1
            self.num_refused += 1
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
        self._left = self.times
        return SEND(sock, buffers, files, flags)


SEND = socket.send_fds


@pytest.mark.parametrize("nb_workers", [1, 3])
def test_messages_that_the_kernel_refuses(monkeypatch: pytest.MonkeyPatch, nb_workers: int) -> None:
    """They are sent again until it takes them, and nothing overtakes them: neither workers nor replicas are lost."""
    refusing = Refusing(3)
    monkeypatch.setattr(socket, "send_fds", refusing)
    with Numbers().prefetch(nb_workers) as batches:
        for epoch in range(4):
            got = [(int(x[0]), at, version) for x, at, version in batches]
            assert got == [(index, epoch, epoch) for index in range(24)]
    assert refusing.num_refused >= 3 * (1 + 4)  # to start a worker, and a replica in each epoch


PROGRAM = """
import os, resource, socket, threading, time
import numpy as np
from workers import Sequence

class Numbers(Sequence):
    version = 0
    def __init__(self):
        super().__init__(seed=1)
    def __len__(self):
        return 24
    def __getitem__(self, index):
        return index, self.epoch, self.version
    def on_epoch_end(self):
        self.version += 1
        self.weights = np.full(20_000, self.version)

def fill():
    # As many descriptors in flight as a user may have.
    one, other = socket.socketpair()
    num_sent = 0
    while True:
        try:
            socket.send_fds(one, [b"x"], [0] * 50)
        except OSError as error:
            print(error.strerror, flush=True)
            return one, other
        num_sent += 50
        assert num_sent < 5000

resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
with Numbers().prefetch(2) as batches:
    for epoch in range(4):
        held = fill()
        threading.Timer(0.3, lambda held=held: [each.close() for each in held]).start()
        assert list(batches) == [(index, epoch, epoch) for index in range(24)], epoch
print("right")
"""


def test_a_kernel_that_refuses() -> None:
    """The real one, where the user has too many descriptors in flight: the loop waits, and goes on."""
    assert run_without_privileges(PROGRAM) == [os.strerror(errno.ETOOMANYREFS)] * 4 + ["right"]


MANY = """
import resource, sys
import numpy as np
import workers
from workers import Sequence

class Numbers(Sequence):
    version = 0
    def __init__(self, num_held):
        super().__init__(seed=1)
        self.held = [workers.share(np.full(1 << 20, number, np.uint8)) for number in range(num_held)]
    def __len__(self):
        return 12
    def __getitem__(self, index):
        return np.full(20_000, index), int(self.held[index][0]), self.version
    def on_epoch_end(self):
        self.version += 1

limit, nb_workers, num_held = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
with Numbers(num_held).prefetch(nb_workers) as batches:
    for epoch in range(3):
        got = [(int(x[0]), held, version) for x, held, version in batches]
        assert got == [(index, index, epoch) for index in range(12)], epoch
print("right")
"""


@pytest.mark.parametrize(("limit", "nb_workers", "num_held"), [(100, 8, 30), (200, 3, 150)])
def test_more_descriptors_than_may_be_in_flight(limit: int, nb_workers: int, num_held: int) -> None:
    """What is sent to some does not keep from being sent what starts the others, nor their results."""
    assert run_without_privileges(MANY, limit, nb_workers, num_held) == ["right"]


def run_without_privileges(program: str, *arguments: int) -> list[str]:
    """The lines that ``program`` prints, run by a user for whom descriptors in flight count."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    if os.getuid() == 0:  # root has no such limit
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv to do without the privileges of root")
        command[:0] = ["setpriv", "--bounding-set=-sys_resource,-sys_admin"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# -- actors of a Ray cluster, without Ray


ACTOR = """
from workers.cluster.actor import Actor
from workers.engine.remote_errors import unpack

(answer,) = Actor(0).run(3, [(1, 0, 2, 0, None)]).value
print(answer.sending, repr(unpack(answer.value, "an actor")))
"""


def test_an_actor_on_another_replica() -> None:
    command = [sys.executable, "-c", ACTOR]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=ROOT, check=True)
    error = rf"IntegrityError\('batch 2 of epoch 0 belongs to replica 3 .* has replica -1\. {BUG}"
    assert re.match(rf"1 {error}", done.stdout)


def test_an_answer_of_another_job() -> None:
    answer = Answer(7, Items([np.ones(3)], pickle.dumps(((0,), []))), 1, 24, ())
    assert answer.items(7).tolist() == [1, 1, 1]
    with pytest.raises(IntegrityError, match=rf"answered sending 8 with the result of sending 7\. {BUG}"):
        answer.items(8)
