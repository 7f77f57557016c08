"""Sequences whose jobs go wrong in every way there is, and what the tests of faults share."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from workers import Sequence, current_job, current_rng

LENGTH = 40
AT = 17  # where it goes wrong
PATIENCE_S = 30.0  # detects a hang


class ThreeArguments(Exception):
    def __init__(self, one: int, two: int, three: int) -> None:
        super().__init__(f"{one} {two} {three}")
        self.one = one


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()


class NoText(Exception):
    def __str__(self) -> str:
        raise LookupError


class Slotted(Exception):
    """Its text is made of what neither its arguments nor its __dict__ hold."""

    __slots__ = ("axis",)

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def __str__(self) -> str:
        return f"axis {self.axis}"


def _local() -> BaseException:
    class Local(Exception):
        pass

    return Local("of a function")


#: What raises, by name; where a test wants another type than what is raised, see there.
RAISES: dict[str, Callable[[], Any]] = {
    "ValueError": lambda: int("wrong"),
    "KeyError": lambda: {}["k"],
    "FileNotFoundError": lambda: open("/nowhere/at/all"),  # noqa: SIM115
    "UnicodeDecodeError": b"\xff".decode,
    "SyntaxError": lambda: compile("a b", "f", "exec"),
    "AxisError": lambda: np.zeros(3).sum(axis=7),
}
ERRORS: dict[str, Callable[[], BaseException]] = {
    "three arguments": lambda: ThreeArguments(1, 2, 3),
    "unpicklable": Unpicklable,
    "no text": NoText,
    "slotted": lambda: Slotted(7),
    "local class": _local,
    "MemoryError": lambda: MemoryError("none left"),
    "StopIteration": lambda: StopIteration(5),
    "StopAsyncIteration": StopAsyncIteration,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "sys.exit": lambda: SystemExit(4),
    "KeyboardInterrupt": KeyboardInterrupt,
}


def end_process(how: str) -> None:
    """Go wrong so that this process ends."""
    if how.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, how))
        time.sleep(60)
    elif how == "_exit":
        os._exit(3)
    elif how == "segfault":
        ctypes.string_at(0)
    elif how == "close descriptors":
        os.closerange(3, 256)
    elif how == "kill the server":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    else:
        raise AssertionError(how)


class EndsWhenPickled:
    """A part of a batch that ends the worker while its result is written."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self) -> Any:
        end_process(self.how)
        return str, ()


def _end_soon(how: str, after_s: float) -> None:
    def end() -> None:
        time.sleep(after_s)
        end_process(how)

    threading.Thread(target=end, daemon=True).start()


def go_wrong(how: str, stage: str = "in the job", after_s: float = 0.0) -> Any:
    if how in RAISES:
        RAISES[how]()
    elif how in ERRORS:
        raise ERRORS[how]()  # noqa: RSE102
    elif stage == "in the job":
        end_process(how)
    elif stage == "while writing":
        return EndsWhenPickled(how)
    elif stage == "while sending":
        _end_soon(how, after_s)
    return None


class Faulty(Sequence):
    """Random batches, small and large in turn; batch ``AT`` goes wrong ``how`` in its first ``times`` attempts."""

    def __init__(self, how: str = "", stage: str = "in the job", times: int = 1, after_s: float = 0.0) -> None:
        super().__init__(seed=1)
        self.how, self.stage, self.times, self.after_s = how, stage, times, after_s

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        job = current_job()
        assert job is not None
        part = None
        if self.how and index == AT and job.attempt < self.times:
            part = go_wrong(self.how, self.stage, self.after_s)
        size = 40_000 if index % 2 else 40
        # The bytes travel in the message itself, so that it takes a while to send.
        text = current_rng().bytes(30_000 if index % 3 else 3)
        return index, job.epoch, current_rng().random(size), np.random.random(3), text, part


class EndsWhenLoaded(Faulty):
    """Ends the first ``times`` workers that load it."""

    def __init__(self, how: str, times: int, folder: Path) -> None:
        super().__init__()
        self.at_load, self.num_loads, self.folder = how, times, folder

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for number in range(self.num_loads):
            try:
                (self.folder / str(number)).touch(exist_ok=False)
            except FileExistsError:
                continue
            end_process(self.at_load)


def same(one: Any, other: Any) -> bool:
    """Whether two batches of Faulty are, all but what went wrong."""
    return one[:2] == other[:2] and one[4] == other[4] and all(map(np.array_equal, one[2:4], other[2:4]))


def undisturbed(num_epochs: int = 1) -> list[list[Any]]:
    """What the serial executor makes of Faulty."""
    with Faulty().prefetch(nb_workers=0) as batches:
        return [list(batches) for _ in range(num_epochs)]


def read(batches: Any) -> list[Any]:
    """All of an epoch; an error in the place of its batch."""
    return list(_outcomes(iter(batches)))


def _outcomes(iterator: Iterator[Any]) -> Iterator[Any]:
    while True:
        try:
            yield next(iterator)
        except StopIteration:
            return
        except Exception as error:
            yield error


def wait_for(condition: Callable[[], Any]) -> Any:
    """What ``condition`` returns when that is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return value


def servers() -> list[psutil.Process]:
    return psutil.Process().children()


def worker_processes() -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for server in servers():
        with contextlib.suppress(psutil.NoSuchProcess):
            found += server.children()
    return found


def is_gone(pid: int) -> bool:
    """Whether it has ended; one that nobody has reaped yet has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
