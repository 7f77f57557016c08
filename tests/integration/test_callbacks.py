"""What functions of the user's may do to the loop that called them: all but break it."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty import wait_for

from sampler import SingleShotMemorySampler
from workers import ClosedError, JobError, Sequence, SequenceMap, StateError, prefetch

EXECUTORS: list[dict[str, Any]] = [
    {"nb_workers": 0},
    {"nb_workers": 2, "executor": "thread"},
    {"nb_workers": 2},
]


class Fails(Sequence):
    """Number 2 does."""

    def __init__(self, error: Any = OSError, length: int = 6) -> None:
        super().__init__(seed=1)
        self.error, self.length = error, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        if index == 2 and self.error is not None:
            raise self.error("of batch 2")
        return self.epoch * 100 + index


def read(batches: Any) -> list[Any]:
    """A pass, errors by their types."""
    got: list[Any] = []
    loop = iter(batches)
    while True:
        try:
            got.append(next(loop))
        except StopIteration:
            return got
        except Exception as error:
            got.append(type(error))


def test_stop_iteration() -> None:
    """It would end the loop without a word."""
    sequence = Fails(StopIteration)
    assert read(sequence) == [0, 1, JobError, 3, 4, 5]

    def stops(*_: Any, **__: Any) -> Any:
        raise StopIteration

    for options in EXECUTORS:
        with SequenceMap(Fails(StopIteration), **options) as batches:
            assert read(batches) == [0, 1, JobError, 3, 4, 5]
        with SequenceMap(Fails(None), collate_fn=stops, **options) as batches:
            assert read(batches) == [JobError] * 6
        with SequenceMap(Fails(), on_error=stops, **options) as batches:
            assert read(batches) == [0, 1, JobError, 3, 4, 5]


@pytest.mark.parametrize("options", EXECUTORS)
def test_collate_fn(options: dict[str, Any]) -> None:
    """What it raises is raised in the batch's place; a state that it takes counts the batch."""
    states: list[Any] = []

    def collate(batch: Any, source: Any) -> Any:
        states.append(source.state_dict())
        if batch % 100 == 3:
            raise OSError
        return batch

    with SequenceMap(Fails(None), collate_fn=collate, **options) as batches:
        assert read(batches) == [0, 1, 2, OSError, 4, 5]
        assert [(state["epoch"], state["batch"]) for state in states] == [
            *((0, number) for number in range(1, 6)),
            (1, 0),
        ]
        batches.load_state_dict(states[3])
        assert read(batches) == [4, 5]


@pytest.mark.parametrize("options", EXECUTORS)
@pytest.mark.parametrize("in_order", [True, False])
def test_ctrl_c_in_collate_fn(options: dict[str, Any], in_order: bool) -> None:
    """The batch, or the item of a list, was not delivered; a state says so."""
    options = dict(options)
    for function in (lambda batch: batch, lambda batch: [batch, -batch]):
        options["function_to_run"] = function
        count = 0

        def collate(batch: Any, source: Any) -> Any:
            nonlocal count
            count += 1
            if count in (3, 6):
                raise KeyboardInterrupt
            return batch

        def made() -> SequenceMap:
            return SequenceMap(Fails(None), collate_fn=collate, in_order=in_order, **options)

        with made() as batches, made() as others:
            got: list[Any] = []
            count = 100
            whole = list(others)
            count = 0
            iter(batches)
            for _ in range(2):
                while True:
                    try:
                        got.append(next(batches))
                    except KeyboardInterrupt:
                        break
                others.load_state_dict(batches.state_dict())
                before, count = count, 100
                assert sorted([*got, *others]) == sorted(whole)
                count = before
            got += rest_of(batches)
            assert sorted(got) == sorted(whole)
            assert not in_order or got == whole


def rest_of(batches: SequenceMap) -> list[Any]:
    return list(iter(lambda: next(batches, None), None))


@pytest.mark.parametrize("options", EXECUTORS)
@pytest.mark.parametrize("answer", ["skip", "raise", "retry"])
def test_on_error_reads(options: dict[str, Any], answer: str) -> None:
    """From the same front-end it may not; from a new loop of it, that takes the place of the one before."""
    mode = "same"

    def on_error(error: BaseException) -> str:
        if mode == "new":
            batches.epoch = 7
            iter(batches)
            assert next(batches) == 700
        elif mode == "fails":
            batches.epoch = 7
            iter(batches)
            assert [next(batches) for _ in range(2)] == [700, 701]
            with pytest.raises(RuntimeError, match="of a loop that on_error began has failed as well"):
                next(batches)
        elif mode == "loads":
            batches.load_state_dict({**state, "batch": 3})
            assert next(batches) == 3
        elif mode == "catches":
            with pytest.raises(RuntimeError, match="must not ask"):
                next(batches)
            return "skip"
        else:
            next(batches)
        return answer

    with SequenceMap(Fails(), on_error=on_error, **options) as batches:
        state = batches.state_dict()
        assert read(batches) == [0, 1, RuntimeError, 3, 4, 5]
        mode = "catches"
        batches.epoch = 0
        assert read(batches) == [0, 1, 3, 4, 5]
        mode = "new"
        batches.epoch = 0
        iter(batches)
        assert [next(batches) for _ in range(3)] == [0, 1, 701]
        mode = "fails"
        batches.epoch = 0
        iter(batches)
        assert [next(batches) for _ in range(3)] == [0, 1, 703]
        mode = "loads"
        batches.epoch = 0
        iter(batches)
        assert [next(batches) for _ in range(3)] == [0, 1, 4]


@pytest.mark.parametrize("options", EXECUTORS)
def test_on_error_closes(options: dict[str, Any], tmp_path: Path) -> None:
    """Nothing is written into what is opened then."""
    files: list[Any] = []

    def on_error(error: BaseException) -> str:
        batches.close()
        files.extend((tmp_path / str(number)).open("wb") for number in range(40))
        return "raise"

    with SequenceMap(Fails(), on_error=on_error, **options) as batches:
        iter(batches)
        assert [next(batches) for _ in range(2)] == [0, 1]
        with pytest.raises(OSError, match="of batch 2"):
            next(batches)
        with pytest.raises(ClosedError):
            next(batches)
    for file in files:
        file.close()
    assert {path.stat().st_size for path in tmp_path.iterdir()} == {0}


@pytest.mark.parametrize("options", EXECUTORS)
def test_closed_by_another_thread(options: dict[str, Any], tmp_path: Path) -> None:
    def waits(batch: Any) -> Any:
        if batch == 2:
            (tmp_path / "waits").touch()
            while not (tmp_path / "go").exists():
                time.sleep(0.002)
        return batch

    def close() -> None:
        wait_for((tmp_path / "waits").exists)
        if options.get("executor") == "thread" or not options["nb_workers"]:
            threading.Timer(0.1, (tmp_path / "go").touch).start()  # a thread cannot be ended
        batches.close()

    batches = SequenceMap(Fails(None), function_to_run=waits, **options)
    iter(batches)
    assert [next(batches) for _ in range(2)] == [0, 1]
    thread = threading.Thread(target=close)
    thread.start()
    with pytest.raises(ClosedError):
        next(batches)
    thread.join()


@pytest.mark.parametrize("options", EXECUTORS)
@pytest.mark.parametrize("on_error", ["raise", "skip", lambda error: "raise"])
def test_nothing_is_kept(options: dict[str, Any], on_error: Any) -> None:
    """After an error, a front-end that nobody holds is gone, with its workers; without waiting for the collector."""
    batches = SequenceMap(Fails(), on_error=on_error, **options)
    gc.collect()
    gc.disable()
    logging.disable()  # pytest keeps what is logged
    try:
        for _ in range(2):
            with contextlib.suppress(OSError):
                list(batches)
        gone = weakref.ref(batches)
        del batches
        wait_for(lambda: gone() is None)  # the engine's thread may just be handing the error over
    finally:
        logging.disable(logging.NOTSET)
        gc.enable()


@pytest.mark.parametrize("options", EXECUTORS)
def test_nothing_is_kept_without_an_error(options: dict[str, Any]) -> None:
    """What the sequence holds may take much of the memory: it is gone as soon as nobody holds the sequence."""
    batches = SequenceMap(Fails(None), **options)
    gc.collect()
    gc.disable()
    try:
        list(batches)
        gone = weakref.ref(batches.source_split)
        batches.close()
        del batches
        wait_for(lambda: gone() is None)
    finally:
        gc.enable()


def test_changes_between_epochs() -> None:
    """Of attributes, without a hook: all executors see them."""
    for options in EXECUTORS:
        source = Fails(None)
        with SequenceMap(source, function_to_run=None, **options) as batches:
            assert len(list(batches)) == 6
            source.error = OSError
            assert read(batches) == [100, 101, OSError, 103, 104, 105]


class Stream(Fails):
    is_stream = True


@pytest.mark.parametrize("options", EXECUTORS)
def test_a_stream_fails(options: dict[str, Any]) -> None:
    """In the batch's place, as a job does."""
    with SequenceMap(Stream(), **options) as batches:
        assert read(batches) == [0, 1, OSError, 3, 4, 5]
        assert read(batches) == [100, 101, OSError, 103, 104, 105]
    with SequenceMap(Stream(), on_error="skip", **options) as batches:
        assert read(batches) == [0, 1, 3, 4, 5]


@pytest.mark.parametrize("options", EXECUTORS)
def test_a_map_of_what_has_no_indices(options: dict[str, Any]) -> None:
    class Items:
        def __iter__(self) -> Any:
            return iter(range(6))

    with SequenceMap(
        SequenceMap(Items(), 0, lambda item: item + 1), function_to_run=lambda item: -item, **options
    ) as batches:
        assert read(batches) == [-1, -2, -3, -4, -5, -6]
    with (
        SequenceMap(Items(), 0, collate_fn=lambda item, source: item) as batches,
        pytest.raises(TypeError, match="only the last map can have a collate_fn"),
    ):
        SequenceMap(batches, **options)


def test_a_shard_of_a_map_with_workers() -> None:
    """One pool for both."""
    whole = Fails(None).map(lambda batch: batch + 1, 1)
    with whole, whole.shard(0, 2).map(lambda batch: -batch, 1) as batches:
        assert whole._live.pool is None
        assert read(batches) == [-1, -3, -5]


def test_an_iterator_cannot_begin_again() -> None:
    with SequenceMap((number for number in range(8)), 0, None, seed=1) as batches:
        iter(batches)
        next(batches)
        state = batches.state_dict()
        next(batches)
        batches.load_state_dict(state)
        with pytest.raises(StateError, match="generator is an iterator, which cannot begin again"):
            next(batches)


def test_on_epoch_begin_is_called_again() -> None:
    """Where the epoch is set, also if it is the same."""

    class Prepares(Fails):
        offset: int | None = None

        def on_epoch_begin(self) -> None:
            self.offset = 0

        def on_epoch_end(self) -> None:
            self.offset = None

        def __getitem__(self, index: int) -> Any:
            assert self.offset is not None
            return super().__getitem__(index) + self.offset

    sequence = Prepares(None)
    for _ in range(2):
        assert read(sequence) == [0, 1, 2, 3, 4, 5]
        sequence.epoch = 0


def test_a_load_that_fails_leaves_it_where_it_was() -> None:
    class Ends(Fails):
        def __len__(self) -> int:
            return [6, 6, 6][self.epoch]

    sequence = Ends(None)
    state = sequence.state_dict()
    with pytest.raises(StateError, match="state is of epoch 7, for which there is no length: IndexError"):
        sequence.load_state_dict({**state, "epoch": 7})
    assert read(sequence) == [0, 1, 2, 3, 4, 5]


def test_numbers_of_numpy_in_a_state() -> None:
    def sampler(kind: Any) -> Any:
        options = {"class_per_batch": kind(4), "steps_per_epoch": kind(5), "seed": kind(1)}
        return SingleShotMemorySampler(np.eye(8), lambda x, y, *_: (x, y), **options)

    sampler(int).load_state_dict(sampler(np.int64).state_dict())


LONG = [*range(1_000_000)]


@pytest.mark.parametrize(
    "arguments",
    [
        {"nb_workers": LONG},
        {"function_to_run": LONG},
        {"collate_fn": LONG},
        {"seed": LONG},
        {"seed": 10**6000},
        {"job_timeout": LONG},
        {"executor": "x" * 1_000_000},
        {"max_queue_size": -(10**6000)},
    ],
    ids=lambda each: next(iter(each)),
)
def test_messages_are_short(arguments: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        SequenceMap(Fails(), **{"nb_workers": 0, **arguments})
    assert len(str(raised.value)) < 500
    with prefetch(Fails(lambda _: SystemExit("x" * 1_000_000)), 0) as batches, pytest.raises(JobError) as exited:
        list(batches)
    assert len(str(exited.value)) < 500


@pytest.mark.parametrize("options", EXECUTORS[1:])
def test_a_child_that_comes_back(options: dict[str, Any], tmp_path: Path) -> None:
    """It ends as it wants to, and is nobody's second worker."""

    def forks(batch: Any) -> Any:
        child = os.fork()
        if child == 0:
            raise SystemExit(batch)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)

    with Fails(None).map(forks, **options) as batches:
        assert read(batches) == [0, 1, 2, 3, 4, 5]
