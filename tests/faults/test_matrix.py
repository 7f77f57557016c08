"""The fault matrix: every stage x every way to go wrong x every executor, and what comes of it.

What goes wrong does so once: in the first attempt at one batch of an epoch, in the first worker that starts, or in one
worker that waits. The batches of two epochs are compared, byte by byte, with those of an undisturbed serial run.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import numpy as np
import psutil
import pytest
from faulty import ThreeArguments, Unpicklable, end_process, go_wrong, is_gone, wait_for, worker_processes

from sampler import SingleShotMemorySampler
from workers import ClosedError, JobError, SequenceMap, current_job, current_rng

LENGTH = 12
AT = 5
JOB_TIMEOUT_S = 0.5
BOUND = 2

# -- the table

#: What may come of it. Those in brackets are cells that cannot be, and why; "as ..." is the same case for the
#: engine, left out because it takes a second or more.
OUTCOMES = {
    "all": "all batches, in order, with the bytes of the serial run; so in the next epoch",
    "place": "raised at the batch's place; the rest of the epoch and the next epoch are whole",
    "first": "raised by the first next(), and by the next one: no worker can do anything",
    "loop": "raised by the loop as it is; the next epoch is whole",
    "left": "all batches before; close() returns, and nothing is left",
    "(own)": "jobs run on the user's own object: nothing starts or is loaded",
    "(kept)": "batches stay in the process: nothing is pickled or sent",
    "(none)": "no code of the user's runs then",
    "(end)": "would end or stop the program: jobs run in its process",
    "(stuck)": "a job in the program's own process cannot be ended",
    "(limit)": "the limit would be the program's own",
    "(fork)": "the child would be the program once more",
    "(files)": "they would be the program's own",
    "(job)": "as a job of get_examples",
    "(stop)": "as SIGSTOP in a worker that is in no job: at the start, or idle",
}

PROCESS = """
                   start  load   get    augment function write  send   idle   last   hook    close
ValueError         first  first  place  place   place    place  all    all    place  loop    left
three-arguments    first  first  place  place   place    place  all    all    place  loop    left
unpicklable        first  first  place  place   place    place  all    all    place  loop    left
KeyboardInterrupt  first  first  place  place   place    place  all    all    place  loop    left
sys.exit           first  first  place  place   place    place  all    all    place  loop    left
_exit              all    all    all    all     all      all    all    all    all    (end)   left
SIGKILL            all    all    all    all     all      all    all    all    all    (end)   left
SIGTERM            all    all    all    all     all      all    all    all    all    (end)   left
SIGSEGV            all    all    all    all     all      all    all    all    all    (end)   left
SIGSTOP            all    (stop) all    (job)   (job)    (job)  all    all    all    (end)   left
loop               (stop) (stop) all    all     (job)    (job)  all    (stop) (job)  (stuck) left
loop-in-C          (stop) (stop) all    (job)   all      all    all    (stop) (job)  (stuck) left
memory             first  first  place  place   place    place  all    all    place  (limit) left
descriptors        all    all    all    all     all      all    all    all    all    (files) left
fork               all    all    all    all     all      all    all    all    all    all     left
fork-returns       all    all    all    all     all      all    all    all    all    (fork)  left
fork-exits         all    all    all    all     all      all    all    all    all    (fork)  left
"""
THREAD = """
                   start  load   get     augment function write  send   idle   last    hook    close
ValueError         (own)  (own)  place   place   place    (kept) (kept) (none) place   loop    left
three-arguments    (own)  (own)  place   place   place    (kept) (kept) (none) place   loop    left
unpicklable        (own)  (own)  place   place   place    (kept) (kept) (none) place   loop    left
KeyboardInterrupt  (own)  (own)  place   place   place    (kept) (kept) (none) place   loop    left
sys.exit           (own)  (own)  place   place   place    (kept) (kept) (none) place   loop    left
_exit              (own)  (own)  (end)   (end)   (end)    (kept) (kept) (none) (end)   (end)   (end)
SIGKILL            (own)  (own)  (end)   (end)   (end)    (kept) (kept) (none) (end)   (end)   (end)
SIGTERM            (own)  (own)  (end)   (end)   (end)    (kept) (kept) (none) (end)   (end)   (end)
SIGSEGV            (own)  (own)  (end)   (end)   (end)    (kept) (kept) (none) (end)   (end)   (end)
SIGSTOP            (own)  (own)  (end)   (end)   (end)    (kept) (kept) (none) (end)   (end)   (end)
loop               (own)  (own)  (stuck) (stuck) (stuck)  (kept) (kept) (none) (stuck) (stuck) (stuck)
loop-in-C          (own)  (own)  (stuck) (stuck) (stuck)  (kept) (kept) (none) (stuck) (stuck) (stuck)
memory             (own)  (own)  (limit) (limit) (limit)  (kept) (kept) (none) (limit) (limit) (limit)
descriptors        (own)  (own)  (files) (files) (files)  (kept) (kept) (none) (files) (files) (files)
fork               (own)  (own)  all     all     all      (kept) (kept) (none) all     all     left
fork-returns       (own)  (own)  all     all     all      (kept) (kept) (none) all     (fork)  left
fork-exits         (own)  (own)  all     all     all      (kept) (kept) (none) all     (fork)  left
"""
# KeyboardInterrupt in the consumer's own thread is what Ctrl-C raises there. Nothing is computed ahead, so close()
# finds no job.
SERIAL = """
                   start  load   get     augment function write  send   idle   last    hook    close
ValueError         (own)  (own)  place   place   place    (kept) (kept) (none) place   loop    (none)
three-arguments    (own)  (own)  place   place   place    (kept) (kept) (none) place   loop    (none)
unpicklable        (own)  (own)  place   place   place    (kept) (kept) (none) place   loop    (none)
KeyboardInterrupt  (own)  (own)  loop    loop    loop     (kept) (kept) (none) loop    loop    (none)
sys.exit           (own)  (own)  place   place   place    (kept) (kept) (none) place   loop    (none)
_exit              (own)  (own)  (end)   (end)   (end)    (kept) (kept) (none) (end)   (end)   (none)
SIGKILL            (own)  (own)  (end)   (end)   (end)    (kept) (kept) (none) (end)   (end)   (none)
SIGTERM            (own)  (own)  (end)   (end)   (end)    (kept) (kept) (none) (end)   (end)   (none)
SIGSEGV            (own)  (own)  (end)   (end)   (end)    (kept) (kept) (none) (end)   (end)   (none)
SIGSTOP            (own)  (own)  (end)   (end)   (end)    (kept) (kept) (none) (end)   (end)   (none)
loop               (own)  (own)  (stuck) (stuck) (stuck)  (kept) (kept) (none) (stuck) (stuck) (none)
loop-in-C          (own)  (own)  (stuck) (stuck) (stuck)  (kept) (kept) (none) (stuck) (stuck) (none)
memory             (own)  (own)  (limit) (limit) (limit)  (kept) (kept) (none) (limit) (limit) (none)
descriptors        (own)  (own)  (files) (files) (files)  (kept) (kept) (none) (files) (files) (none)
fork               (own)  (own)  all     all     all      (kept) (kept) (none) all     all     (none)
fork-returns       (own)  (own)  (fork)  (fork)  (fork)   (kept) (kept) (none) (fork)  (fork)  (none)
fork-exits         (own)  (own)  (fork)  (fork)  (fork)   (kept) (kept) (none) (fork)  (fork)  (none)
"""

STAGES = {
    "start": "an import of the sequence's, before anything of it is there",
    "load": "__setstate__ of the sequence",
    "get": "get_examples of a sampler",
    "augment": "its augmenter",
    "function": "the function of .map",
    "write": "while the result is pickled",
    "send": "in another thread, as soon as the job's own lets go of the interpreter: when it sends",
    "idle": "between jobs, while the consumer holds back",
    "last": "the last job of an epoch",
    "hook": "on_epoch_end, in the consumer",
    "close": "in what the worker has registered by atexit; in a thread: in a job that is running",
}
WAYS = [row.split()[0] for row in PROCESS.strip().splitlines()[1:]]
EXECUTORS = {"process": (2, PROCESS), "thread": (2, THREAD), "serial": (0, SERIAL)}

LIVES = ("start", "load", "close")

Cell = tuple[str, str, str]

#: What the engine has to learn yet; "": nothing, but such a cell needs workers of its own, for one stays stopped.
BUGS: dict[Cell, str] = {("start", "SIGSTOP", "process"): "", ("idle", "SIGSTOP", "process"): ""}


def table() -> Iterator[tuple[Cell, str]]:
    for executor, (_, text) in EXECUTORS.items():
        stages, *rows = [line.split() for line in text.strip().splitlines()]
        for way, *outcomes in rows:
            for stage, outcome in zip(stages, outcomes, strict=True):
                yield (stage, way, executor), outcome


TABLE = dict(table())


def test_the_table_is_complete() -> None:
    """Each cell has one entry, which says what comes of it or why it cannot be."""
    cells = [cell for cell, _ in table()]
    assert sorted(cells) == sorted(itertools.product(STAGES, WAYS, EXECUTORS))
    assert set(TABLE.values()) == set(OUTCOMES)


RAISED = ("ValueError", "three-arguments", "unpicklable", "KeyboardInterrupt", "sys.exit", "memory")


# -- going wrong

# The workers then need not import this module, and pytest with it: that would take most of the time.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def wrong(way: str, is_worker: bool) -> None:
    """Go wrong here."""
    if way == "loop":
        while True:
            pass
    elif way == "loop-in-C":
        re.match("(a+)+$", "a" * 40 + "b")
    elif way == "memory":
        limit = psutil.Process().memory_info().vms + (256 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))  # for as long as this worker lives
        np.ones(1 << 30, np.uint8)
    elif way in RAISED:
        go_wrong(way.replace("-", " "))
    elif way.startswith("fork"):
        child = os.fork()
        if child == 0:
            if way == "fork-returns":  # it goes on as if it were the worker
                return
            if way == "fork-exits":
                sys.exit(3)
            if is_worker:
                time.sleep(60)  # it holds all that the worker has open, until the workers' end is its own
            os._exit(0)
        if not is_worker:
            os.waitpid(child, 0)
    else:
        end_process({"SIGSEGV": "segfault", "descriptors": "close descriptors"}.get(way, way))


class Plan(NamedTuple):
    """What goes wrong: in epoch e, ``ways[e]``."""

    stage: str
    ways: tuple[str, ...]
    folder: Path  # where workers tell of themselves
    consumer: int  # its process

    def go(self, way: str) -> None:
        wrong(way, os.getpid() != self.consumer)

    def in_job(self, *stages: str) -> str | None:
        """The way in which this job is to go wrong."""
        job = current_job()
        assert job is not None
        at = LENGTH - 1 if self.stage == "last" else AT
        is_first = job.index == at and job.attempt == 0 and job.epoch < len(self.ways)
        if self.stage == "close" and os.getpid() != self.consumer:  # a worker goes wrong when it ends
            return None
        return self.ways[job.epoch] if is_first and self.stage in stages else None

    def in_load(self, stage: str) -> None:
        """Called by each worker, at two stages of its life."""
        if os.getpid() == self.consumer:
            return
        # What raises does so in all workers: else one of them may deliver before.
        if self.stage == stage and (way := self.ways[0] if self.ways[0] in RAISED else self.take_way()):
            self.go(way)
        if stage == "load" and self.stage == "close" and (way := self.take_way()):
            atexit.register(self.go_at_exit, way)
        if stage == "load" and self.stage == "idle":
            for way in self.ways:
                signal.signal(signal_of(way), self.in_handler)
            (self.folder / f"ready-{os.getpid()}").touch()

    def take_way(self) -> str | None:
        """One that no worker has taken before."""
        for way in self.ways:
            with contextlib.suppress(FileExistsError):
                (self.folder / f"{self.stage}-{way}").touch(exist_ok=False)
                return way
        return None

    def is_taken(self, way: str) -> bool:
        return (self.folder / f"{self.stage}-{way}").exists()

    def go_at_exit(self, way: str) -> None:
        (self.folder / f"exit-{way}").touch()
        self.go(way)

    def in_handler(self, number: int, _: Any) -> None:
        """Runs in the worker's main thread, in the midst of its waiting."""
        way = next(way for way in self.ways if signal_of(way) == number)
        (self.folder / f"idle-{way}").touch()
        self.go(way)


def signal_of(way: str) -> int:
    return signal.SIGRTMIN + 10 + WAYS.index(way)


class GoesWrong:
    """A part of a batch that acts when it is pickled."""

    def __init__(self, plan: Plan, way: str) -> None:
        self.plan, self.way = plan, way

    def __reduce__(self) -> Any:
        if self.plan.stage == "write":
            self.plan.go(self.way)
        else:  # it runs when this thread lets go of the interpreter: when it sends
            threading.Thread(target=self.plan.go, args=(self.way,), daemon=True).start()
        return str, ()


class Sampler(SingleShotMemorySampler):
    """Batches of 128 KB and of 64 bytes in turn, random ones."""

    def __init__(self, plan: Plan) -> None:
        def augment(x: Any, y: Any, num: int, is_warmup: bool) -> Any:
            if way := plan.in_job("augment"):
                plan.go(way)
            x = x + current_rng().random(x.shape, np.float32)
            return (x if y[0] % 2 else x[:, :4].copy()), y

        x = np.random.default_rng(0).random((100, 8_000), np.float32)
        super().__init__(x, augment, class_per_batch=4, steps_per_epoch=LENGTH, seed=1)
        self.plan = plan

    def get_examples(self, batch_id: int, num_classes: int, example_per_class: int) -> Any:
        if way := self.plan.in_job("get", "last", "close"):
            if self.plan.stage == "close":
                wait_for((self.plan.folder / "closing").exists)
            self.plan.go(way)
        return super().get_examples(batch_id, num_classes, example_per_class)

    def __reduce__(self) -> Any:
        return new, (type(self), self.plan), self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.plan.in_load("load")


def new(of: type[Sampler], plan: Plan) -> Sampler:
    """The first that a worker calls for to load a Sampler."""
    plan.in_load("start")
    return of.__new__(of)


class WithHook(Sampler):
    hooked = -1

    def on_epoch_end(self) -> None:
        epoch, before = self.epoch, self.hooked
        self.hooked = epoch  # asked again for the same epoch, it goes well
        if epoch != before and epoch < len(self.plan.ways):
            self.plan.go(self.plan.ways[epoch])


def start(plan: Plan, executor: str) -> SequenceMap:
    def function(batch: Any) -> Any:
        if way := plan.in_job("function"):
            plan.go(way)
        way = plan.in_job("write", "send")
        return (*batch, GoesWrong(plan, way) if way else None)

    source = WithHook(plan) if plan.stage == "hook" else Sampler(plan)
    kind = "thread" if executor == "thread" else "process"
    bound = BOUND if plan.stage == "idle" else None
    # For the life of a worker, a worker for each way.
    nb_workers = max(EXECUTORS[executor][0], len(plan.ways) if plan.stage in LIVES and executor == "process" else 0)
    return source.map(function, nb_workers, executor=kind, max_queue_size=bound, job_timeout=JOB_TIMEOUT_S)


# -- what comes of it

STALLED_S = 30.0  # detects a hang
KNOWN_S = 4.0  # where one is known of


class Stalled(Exception):
    pass


@contextlib.contextmanager
def watched(batches: SequenceMap, seconds: float = STALLED_S) -> Iterator[None]:
    """A hang fails the test, not the run."""
    timer = threading.Timer(seconds, batches.close)
    timer.start()
    try:
        yield
    except ClosedError:
        raise Stalled from None
    finally:
        timer.cancel()
        timer.join()


def rest(batches: SequenceMap, most: int = LENGTH + 1) -> list[Any]:
    """What is left of the pass, as bytes, but at most so much; an error in the place of its batch."""
    got: list[Any] = []
    while len(got) < most:
        try:
            x, y, _ = next(batches)
            got.append((x.tobytes(), y.tobytes()))
        except StopIteration:
            break
        except ClosedError:
            raise
        except BaseException as error:
            got.append(error.with_traceback(None))  # which holds the front-end
            if not isinstance(error, Exception):
                break  # what the program would end with
    return got


def read_epoch(batches: SequenceMap, plan: Plan, epoch: int) -> list[Any]:
    begun: list[Any] = []
    try:
        iter(batches)
    except ClosedError:
        raise
    except Exception as error:
        return [error.with_traceback(None)]
    if plan.stage == "idle" and epoch < len(plan.ways):
        begun = rest(batches, 1)
        # Only when the queue is full again is nothing sent any more.
        wait_for(lambda: len(batches._live.current.reading.outcomes) == BOUND and not batches.has_background_jobs())
        waiting = wait_for(lambda: [each for each in worker_processes() if is_ready(plan, each.pid)])
        waiting[0].send_signal(signal_of(plan.ways[epoch]))
        wait_for(lambda: plan.is_taken(plan.ways[epoch]))
    return begun + rest(batches, LENGTH + 1 - len(begun))


def is_ready(plan: Plan, pid: int) -> bool:
    return (plan.folder / f"ready-{pid}").exists()


@functools.cache
def epochs(stage: str, ways: tuple[str, ...], executor: str, folder: Path) -> list[list[Any]]:
    """An epoch for each way, and one behind them; of a worker's life two."""
    plan = Plan(stage, ways, folder, os.getpid())
    with start(plan, executor) as batches:
        number = 2 if stage in LIVES else len(ways) + 1
        got = [watch_epoch(batches, plan, epoch) for epoch in range(number)]
    assert stage not in ("start", "load") or ways[0] in RAISED or all(map(plan.is_taken, ways))
    return got


def watch_epoch(batches: SequenceMap, plan: Plan, epoch: int) -> list[Any]:
    is_known = any((plan.stage, way, "process") in BUGS for way in plan.ways)
    with watched(batches, KNOWN_S if is_known else STALLED_S):
        return read_epoch(batches, plan, epoch)


@functools.cache
def undisturbed(folder: Path) -> list[list[Any]]:
    return epochs("", ("",) * len(WAYS), "serial", folder)


def together(stage: str, way: str, executor: str) -> tuple[str, ...]:
    """The ways that go wrong in one front-end, as starting it takes longer than they do: those of a stage in one epoch
    each; those of a worker's life in one worker each, which is one of many then."""
    cell = stage, way, executor
    if executor != "process" or cell in BUGS or TABLE[cell] == "first":
        return (way,)
    ways = [each for each in WAYS if TABLE[stage, each, executor] in ("left", "all", "place", "loop")]
    ways = [each for each in ways if (stage, each, executor) not in BUGS]
    if stage in LIVES:
        at = ways.index(way) // 5 * 5
        ways = ways[at : at + 5]
    return tuple(ways)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("matrix")


def groups() -> Iterator[Any]:
    """The cells, those of a stage and an executor in one test each, where that can be: the police takes its time."""
    found: dict[tuple[str, str, tuple[str, ...]], None] = {}
    for (stage, way, executor), outcome in TABLE.items():
        if not outcome.startswith("("):
            ways = together(stage, way, executor)
            if executor != "process" and (stage, way, executor) not in BUGS:
                ways = tuple(each for each in WAYS if not TABLE[stage, each, executor].startswith("("))
                ways = tuple(each for each in ways if (stage, each, executor) not in BUGS)
            found[stage, executor, ways] = None
    for stage, executor, ways in found:
        bug = BUGS.get((stage, ways[0], executor))
        marks = [pytest.mark.xfail(strict=True, reason=bug)] if bug else []
        yield pytest.param(stage, ways, executor, marks=marks, id=f"{executor}-{stage}-{ways[0]}")


@pytest.mark.parametrize(("stage", "ways", "executor"), list(groups()))
def test_cells(stage: str, ways: tuple[str, ...], executor: str, folder: Path, tmp_path: Path) -> None:
    failed = {}
    for way in ways:
        (tmp_path / way).mkdir()
        try:
            check_cell(stage, way, executor, folder, tmp_path / way)
        except AssertionError as error:
            failed[way] = error
    assert not failed


def check_cell(stage: str, way: str, executor: str, folder: Path, own: Path) -> None:
    outcome = TABLE[stage, way, executor]
    ways = together(stage, way, executor)
    here = own if len(ways) == 1 else folder  # the same arguments for all who share
    if stage == "close":
        check_close(ways, executor, folder, here)
        return
    epoch = 0 if stage in LIVES else ways.index(way)
    got, following = epochs(stage, ways, executor, here)[epoch : epoch + 2]
    wanted, then = undisturbed(folder)[epoch : epoch + 2]
    if outcome == "all":
        assert got == wanted
    elif outcome == "place":
        at = LENGTH - 1 if stage == "last" else AT
        check_error(way, got[at])
        assert got[:at] + got[at + 1 :] == wanted[:at] + wanted[at + 1 :]
    elif outcome == "loop":
        check_raw_error(way, got.pop())
        assert got == (wanted if stage == "hook" else wanted[: LENGTH - 1 if stage == "last" else AT])
    else:
        assert outcome == "first"
        for error in got + following:
            check_error(way, error)
        return
    if stage in LIVES or epoch + 1 == len(ways):  # else another way goes wrong in it, and its cell compares
        assert following == then


def check_error(way: str, error: Any) -> None:
    """What a job raised, as the consumer gets it."""
    if way in ("KeyboardInterrupt", "sys.exit"):
        assert type(error) is JobError
        assert {"sys.exit": "SystemExit"}.get(way, way) in str(error)
    elif type(error) is JobError:
        assert way == "unpicklable"  # cannot be made again
        assert "Unpicklable: holds a lock" in str(error)
    else:
        check_raw_error(way, error)


def check_raw_error(way: str, error: Any) -> None:
    types = {
        "ValueError": ValueError,
        "three-arguments": ThreeArguments,
        "unpicklable": Unpicklable,
        "KeyboardInterrupt": KeyboardInterrupt,
        "sys.exit": SystemExit,
        "memory": MemoryError,
    }
    assert isinstance(error, types[way])
    if isinstance(error, ThreeArguments):
        assert (error.one, str(error)) == (1, "1 2 3")


@functools.cache
def check_close(ways: tuple[str, ...], executor: str, folder: Path, here: Path) -> None:
    """The fixture ``police`` sees what is left."""
    plan = Plan("close", ways, here, os.getpid())
    batches = start(plan, executor)
    with watched(batches):
        iter(batches)
        assert rest(batches, AT) == undisturbed(folder)[0][:AT]
        if executor == "process":
            wait_for(lambda: all(map(plan.is_taken, ways)) and not batches.has_background_jobs())
        pids = [process.pid for process in worker_processes()]
        (here / "closing").touch()
        batches.close()
    assert all(map(is_gone, pids))
    assert executor != "process" or all((here / f"exit-{way}").exists() for way in ways)
