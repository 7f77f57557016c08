"""Limits of memory, descriptors and /dev/shm: an error that says what is missing, or no difference."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from any_workers import epochs_on
from control_groups import enter, limited
from faulty import wait_for

import workers
from workers import PlatformError, Sequence, current_job, prefetch
from workers.process import channel

pytestmark = pytest.mark.own_server

ROOT = Path(__file__).resolve().parents[2]

HEAD = """
import resource, sys
import numpy as np
from workers import Sequence, prefetch

class Arrays(Sequence):
    def __init__(self, nbytes, limit=0):
        super().__init__(seed=1)
        self.nbytes, self.limit = nbytes, limit
    def __len__(self):
        return 6
    def __getitem__(self, index):
        if self.limit:
            resource.setrlimit(resource.RLIMIT_AS, (self.limit, self.limit))
        return np.full((self.nbytes if index == 3 else 800) // 8, index)

def tell(batches):
    batches = iter(batches)
    while True:
        try:
            print(int(next(batches)[0]), flush=True)
        except StopIteration:
            return
        except MemoryError as error:
            print("MemoryError", error, flush=True)
"""


def run(program: str, *before: str, limit: str = "") -> list[str]:
    """The lines that a program prints."""
    command = [*before, sys.executable, "-c", limit + HEAD + program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_address_space() -> None:
    """A batch that does not fit raises in its place, naming sizes; the others come."""
    lines = run("with prefetch(Arrays(1 << 30, 2 << 30), 1) as batches: tell(batches)")
    assert lines[:3] + lines[4:] == ["0", "1", "2", "4", "5"]
    assert lines[3].startswith("MemoryError")
    assert "1,073,741,824" in lines[3] or "1.00 GiB" in lines[3]


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of 400 MB."""
    with limited("memory", 400 << 20, "memory.max", "memory.limit_in_bytes") as made:
        yield made


def test_control_group(group: Path) -> None:
    """What is over the limit is not touched: nobody is killed."""
    lines = run("with prefetch(Arrays(250 << 20), 1) as batches: tell(batches)", limit=enter(group))
    assert lines[:3] + lines[4:] == ["0", "1", "2", "4", "5"]
    assert "262,144,000" in lines[3] or "bytes of shared memory do not fit" in lines[3]


def test_out_of_memory_in_a_control_group(group: Path) -> None:
    """The error names the limit of the group, and what takes most of it."""
    program = """
from workers import WorkerDiedError
class Greedy(Arrays):
    def __getitem__(self, index):
        return len(np.ones(600 << 17)) if index == 1 else index

with prefetch(Greedy(8), 1) as batches:
    batches = iter(batches)
    print(next(batches))
    try:
        next(batches)
    except WorkerDiedError as error:
        print(error)
    print(next(batches))
"""
    before, text, after = run(program, limit=enter(group))
    assert (before, after) == ("0", "2")
    assert "was killed by SIGKILL in batch 1 of epoch 0, for the third time" in text
    assert re.search(rf"held up to \d+ MB of 400 MB \(memory.\w+ of the control group {group}\);", text)
    assert "make the batches smaller, as one job alone took up to" in text


@pytest.mark.parametrize("files", [20, 40, 64])
def test_descriptors(files: int) -> None:
    """16 workers need 2 descriptors each and a few more: they work, or say at start what is missing."""
    program = """
from workers import PlatformError
try:
    with prefetch(Arrays(800), 16) as batches:
        print(len(list(batches)))
except PlatformError as error:
    print(error)
"""
    limit = f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))\n"
    (line,) = run(program, limit=limit)
    missing = f"16 workers cannot be started: all {files} file descriptors (ulimit -n) are in use"
    assert line == "6" if files == 64 else missing in line


@pytest.mark.parametrize("size", ["1m", "absent"])
def test_dev_shm(size: str) -> None:
    """Is not used."""
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip("needs root and unshare to give a program a /dev/shm of its own")
    mount = (
        "mount -t tmpfs -o size=1m none /dev/shm"
        if size == "1m"
        else "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9"
    )
    lines = run(
        "with prefetch(Arrays(40 << 20), 2) as batches: tell(batches)",
        "unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh",
    )  # fmt: skip
    assert lines == ["0", "1", "2", "3", "4", "5"]


def test_a_control_group_with_room_for_few(group: Path) -> None:
    """More batches than fit are wanted ahead: nobody is killed, and each comes. Then the loop keeps them all."""
    program = """
from workers import empty
class Large(Sequence):
    def __init__(self):
        super().__init__(seed=1)
    def __len__(self):
        return 16
    def __getitem__(self, index):
        batch = empty(60 << 17, np.int64)
        batch[:] = index
        return batch

with prefetch(Large(), 1, max_queue_size=12) as batches:
    tell(batches)
    held = []
    try:
        for batch in batches:
            held.append(batch)
    except MemoryError as error:
        print(len(held), [int(each.max()) for each in held] == list(range(len(held))), error)
"""
    *lines, last = run(program, limit=enter(group))
    assert lines == [str(index) for index in range(16)]
    number, is_whole, text = last.split(" ", 2)
    assert 3 <= int(number) <= 6
    assert is_whole == "True"
    assert re.search(rf"into the \d+ MB that are left of 400 MB \(memory.\w+ of the control group {group}\)", text)
    assert "The loop holds batches of" in text


NO_DESCRIPTORS = """
import contextlib, logging, os, psutil, time
from workers import PlatformError
logging.basicConfig(level="WARNING", stream=sys.stdout, format="%(message)s")

class Growing(Sequence):
    def __len__(self):
        return 100
    def __getitem__(self, index):
        time.sleep(0.02)  # else all is made before the workers die
        return np.full(9_000 * (1 + index), index)

@contextlib.contextmanager
def none_left():
    files = []
    def take():
        with contextlib.suppress(OSError):
            while True:
                files.append(os.open("/dev/null", os.O_RDONLY))
    take()
    try:
        yield take
    finally:
        for file in files:
            os.close(file)

def processes():
    return psutil.Process().children(recursive=True)

resource.setrlimit(resource.RLIMIT_NOFILE, (150, 150))
batches = Growing(seed=1).prefetch(2)
loop = iter(batches)
assert int(next(loop)[0]) == 0
processes()
"""

PLACES = {
    "loop": """
with none_left() as take:
    try:
        for number, batch in enumerate(loop, 1):
            assert int(batch[0]) == number, "some are lost"
            take()  # one was in use for a moment when all others were taken
    except PlatformError as error:
        print(error)
""",
    "death": """
workers = []
while len(workers) < 2:  # one is enough for the first batch
    workers = [each for server in psutil.Process().children() for each in server.children()]
with none_left():
    for each in workers:
        os.kill(each.pid, 9)
    try:
        assert [int(batch[0]) for batch in loop] == list(range(1, 100)), "some are lost"
    except OSError as error:
        print(error)
    except RuntimeError as error:
        print(error)
""",
    "close": """
with none_left():
    batches.close()
print("ulimit -n")
""",
}


@pytest.mark.parametrize("place", PLACES)
def test_no_descriptors_are_left_for_a_while(place: str) -> None:
    """The loop raises an error that names the limit, close() ends everything, and later another pool does all."""
    program = """
batches.close()
assert not processes(), processes()
with prefetch(Arrays(800), 2) as batches:
    tell(batches)
"""
    *said, last = " ".join(run(NO_DESCRIPTORS + PLACES[place] + program)).split("ulimit -n")
    assert place == "close" or "150" in said[-1]
    assert "Traceback" not in " ".join(said)
    assert last.endswith(" 0 1 2 3 4 5")


def test_a_worker_that_cannot_be_replaced_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """For want of descriptors: the others go on, and it comes later."""
    pair, left = channel.pair, [1]

    def refuse() -> Any:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return pair()

    class Mortal(Sequence[Any]):
        def __len__(self) -> int:
            return 30

        def __getitem__(self, index: int) -> Any:
            if index == 5 and not os.path.exists(path):
                wait_for(lambda: os.path.exists(go))
                with open(path, "w"):
                    os.kill(os.getpid(), signal.SIGKILL)
            return index

    with tempfile.TemporaryDirectory() as folder:
        path, go = f"{folder}/died", f"{folder}/go"
        with Mortal().prefetch(2) as batches:
            loop = iter(batches)
            assert next(loop) == 0
            wait_for(lambda: [worker.pid is not None for worker in batches.report().workers] == [True, True])
            monkeypatch.setattr(channel, "pair", refuse)
            Path(go).touch()
            assert list(loop) == list(range(1, 30))
            assert list(batches) == list(range(30))
    assert "2 workers were asked for, 1 could be started: Too many open files (of" in caplog.text


class Many(Sequence[Any]):
    """Holds more shared arrays than a message has descriptors, and returns as many arrays in a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.held = [workers.share(np.full(1 << 20, number % 251, np.uint8)) for number in range(255)]

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        made = [workers.empty(40_000, np.uint8) if index % 2 else np.empty(40_000, np.uint8) for _ in range(600)]
        for number, array in enumerate(made):
            array[:] = (number + index) % 256
        return made, sum(int(array[index]) for array in self.held)


@pytest.mark.parametrize("nb_workers", [2, "auto"])
def test_more_descriptors_than_a_message_takes(nb_workers: Any) -> None:
    """In a sequence, and in a batch."""
    sequence = Many()
    expected = sum(int(array[0]) for array in sequence.held)
    (kept,) = epochs_on(sequence, nb_workers, "process", 1)
    for index, (arrays, total) in enumerate(kept):
        assert total == expected
        assert all((array == (number + index) % 256).all() for number, array in enumerate(arrays))


def test_an_array_of_the_sequence_that_fits_only_once(group: Path) -> None:
    """It is copied into shared memory: the error says why, how much is allowed, and how to have it there only."""
    program = """
class Holding(Arrays):
    def __init__(self, array):
        super().__init__(800)
        self.array = array

def show(*arguments, **options):
    try:
        with prefetch(Holding(array), *arguments, **options) as batches: print(len(list(batches)))
    except MemoryError as error:
        print(error)

array = np.ones(220 << 17)
show(1)
show(0)
show(1, executor="thread")
del array
from workers import share
array = share(np.zeros(220 << 17))
array[:] = 1
show(1)
"""
    text, *others = run(enter(group) + program)
    assert text.startswith("the large arrays of the sequence are copied into shared memory")
    assert re.search(
        r"230,686,720 bytes of shared memory do not fit: [\d,]+ bytes are left of 419,430,400 \(memory", text
    )
    assert "workers.share(np.zeros(shape, dtype)), and then fill it" in text
    assert others == ["6", "6", "6"]


def allow_files_of(nbytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


class Batches(Sequence[Any]):
    """With ``limit``, batch 3 is larger than a file may be."""

    def __init__(self, limit: int = 0) -> None:
        super().__init__(seed=1)
        self.limit = limit

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        if self.limit and index == 3 and current_job().worker is not None:
            allow_files_of(self.limit)
            return np.zeros(2 * self.limit, np.uint8)
        return np.full(100, index)


def test_a_limit_of_the_size_of_files_in_a_worker() -> None:
    """Shared memory counts as a file."""
    with prefetch(Batches(1 << 20), 1) as batches:
        iterator = iter(batches)
        got = [int(next(iterator)[0]) for _ in range(3)]
        with pytest.raises(PlatformError, match=r"2,097,152 bytes .* no more than 1,048,576 .*RLIMIT_FSIZE.*ulimit -f"):
            next(iterator)
        assert [*got, *(int(batch[0]) for batch in iterator)] == [0, 1, 2, 4, 5]


def test_a_limit_of_the_size_of_files_in_the_program() -> None:
    most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    allow_files_of(1000)
    try:
        with pytest.raises(PlatformError, match=r"4,096 bytes .* no more than 1,000 .*executor=.thread."):
            prefetch(Batches(), 1)
        with prefetch(Batches(), 1, executor="thread") as batches:
            assert len(list(batches)) == 6
    finally:
        allow_files_of(most)


@pytest.mark.parametrize("how", ["refused", "missing"])
def test_no_memfd(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in some sandboxes, and with an old C library."""

    def refuse(*_: Any) -> int:
        raise OSError(errno.EPERM, "Operation not permitted")

    if how == "missing":
        monkeypatch.delattr(os, "memfd_create")
    else:
        monkeypatch.setattr(os, "memfd_create", refuse)
    text = {"refused": "is refused .Operation not permitted.", "missing": "was built without os.memfd_create"}[how]
    with pytest.raises(PlatformError, match=rf"cannot get shared memory: .*{text}.*executor=.thread."):
        prefetch(Batches(), 1)
    with prefetch(Batches(), "auto") as batches:
        assert len(list(batches)) == 6
