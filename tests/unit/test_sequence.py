"""Sequences in one process: epochs, the chain, parts, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import workers
from workers import ClosedError, NotPicklableError, Sequence, SequenceArray, SequenceMap, current_rng, prefetch


class Noise(Sequence):
    """Batches of random numbers; notes its epochs' ends."""

    def __init__(self) -> None:  # on purpose without super().__init__()
        self.ends: list[int] = []

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        return index, self.epoch, float(current_rng().random()), float(np.random.random())

    def on_epoch_end(self) -> None:
        self.ends.append(self.epoch)


def test_an_item_is_the_batch_of_the_loop() -> None:
    sequence = Noise()
    assert list(sequence) == [(index, 0, *rest) for index, (_, _, *rest) in enumerate(_all(sequence, 0))]
    assert sequence.epoch == 1
    assert list(sequence) == _all(sequence, 1)
    assert sequence[-1] == sequence[4]
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"index {index} is out of range.*0 to 4"):
            sequence[index]
    with pytest.raises(TypeError, match="index"):
        sequence["a"]  # type: ignore[index]


def _all(sequence: Noise, epoch: int) -> list[Any]:
    now = sequence.epoch
    sequence.epoch = epoch
    batches = [sequence[index] for index in range(len(sequence))]
    sequence.epoch = now
    return batches


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: s.prefetch(nb_workers=0), lambda s: s.map(lambda b: b)])
def test_each_epoch_ends_once(wrap: Callable[[Any], Any]) -> None:
    """Also one that was left in the middle; and asking for items is no epoch."""
    sequence = Noise()
    wrapped = wrap(sequence)
    sequence[3]
    for batch in wrapped:
        if batch[0] == 2:
            break
    assert sequence.ends == []
    assert [batch[1] for batch in wrapped] == [1] * 5
    iter(wrapped)
    iter(wrapped)
    assert sequence.ends == [0, 1]
    assert [batch[1] for batch in wrapped] == [2] * 5


def test_map_and_batch() -> None:
    numbers = SequenceArray({"x": np.arange(10), "name": [f"n{i}" for i in range(10)]})
    assert numbers[3] == {"x": 3, "name": "n3"}
    batches = numbers.batch(4)
    assert [batch["x"].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(numbers.batch(4, discard_batch_not_full=True)) == 2
    doubled = batches.map(lambda batch: batch["x"] * 2)
    assert doubled[1].tolist() == [8, 10, 12, 14]
    split = batches.map(lambda batch: list(batch["x"])).map([lambda x: x + 1, lambda x: [] if x % 2 else [x, -x]])
    assert [int(x) for x in split] == [2, -2, 4, -4, 6, -6, 8, -8, 10, -10]
    collated = batches.map(lambda batch: batch["x"], collate_fn=lambda batch, source: (type(source), batch.sum()))
    assert [tuple(batch) for batch in collated] == [(SequenceMap, 6), (SequenceMap, 22), (SequenceMap, 17)]
    stacked = Noise().batch(5)[0]
    assert stacked[0].tolist() == [0, 1, 2, 3, 4]


def test_sequence_array_samplers() -> None:
    arrays = {"x": np.arange(6)}
    assert [sample["x"] for sample in SequenceArray(arrays, sampler=[4, -1, 4])] == [4, 5, 4]
    shuffled = SequenceArray(arrays, sampler=np.random.permutation, seed=1)
    epochs = [[int(sample["x"]) for sample in shuffled] for _ in range(3)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert [int(sample["x"]) for sample in SequenceArray(arrays, sampler=np.random.permutation, seed=1)] == epochs[0]


def test_parts() -> None:
    """subsample_uids follows the order of the uids; both go through the whole chain."""
    chain = SequenceArray({"x": np.arange(8) * 10, "uid": np.arange(8)[::-1]}, sampler=np.random.permutation).batch(2)
    mapped = chain.map(lambda batch: batch["uid"].tolist()).map(lambda uid: uid)
    assert list(mapped.subsample_uids([5, 0, 7, 5, 99], "uid")) == [5, 0, 7]
    part = chain.subsample(3)
    assert len(part) == 2
    assert len({uid for batch in part for uid in batch["uid"].tolist()}) == 3
    with pytest.raises(ValueError, match=r"uids_name must be one of .*'uid', 'x'"):
        chain.subsample_uids([1], "id")
    with pytest.raises(ValueError, match="nb_samples must be at most the 8"):
        chain.subsample(9)
    with pytest.raises(TypeError, match="Noise has no samples"):
        Noise().subsample(3)


def test_next_item_without_blocking() -> None:
    with SequenceMap([1, 2], 0, None) as items:
        assert items.next_item(blocking=False) == 1
        assert items.next_item(blocking=True) == 2
        with pytest.raises(StopIteration):
            items.next_item(blocking=False)
        assert items.metadata.nb_batches == 2


def test_closed() -> None:
    sequence = Noise()
    batches = sequence.prefetch(nb_workers=0)
    next(batches)
    batches.close()
    batches.close()
    for use in (lambda: next(batches), lambda: iter(batches), lambda: batches[0], lambda: batches.next_item(False)):
        with pytest.raises(ClosedError, match="SequenceMap was closed"):
            use()
    assert sequence[0]
    sequence.close()
    with pytest.raises(ClosedError):
        sequence[0]
    with pytest.raises(ClosedError):
        prefetch(sequence, 0)


class Holder(Noise):
    def __init__(self, held: Any) -> None:
        self.held = held


def _returns(value: Any) -> Callable[[Any], Any]:
    lock = value
    return lambda batch: lock


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: prefetch([1], -1), ValueError, 'nb_workers must be an integer >= 0 or "auto", not -1'),
    (lambda: prefetch([1], 1.5), TypeError, 'nb_workers must be an integer >= 0 or "auto", not 1.5'),
    (lambda: prefetch([1], True), TypeError, "nb_workers must be"),
    (lambda: prefetch([1], 1, 0), ValueError, "max_queue_size must be None or an integer >= 1, not 0"),
    (lambda: prefetch([1], 1, "3"), TypeError, "max_queue_size must be"),
    (
        lambda: prefetch([1], 1, executor="fork"),
        ValueError,
        "executor must be one of 'process', 'thread', 'ray', not 'fork'",
    ),
    (lambda: prefetch([1], 1, on_error="ignore"), ValueError, "on_error must be one of 'raise', 'skip'"),
    (lambda: prefetch([1], 1, in_order=None), ValueError, "in_order must be one of"),
    (lambda: prefetch([1], 1, job_timeout=0), ValueError, "job_timeout must be a number of seconds > 0 or None"),
    (lambda: prefetch([1], 1, job_timeout="1"), TypeError, "job_timeout must be"),
    (lambda: prefetch([1], 1, seed=-1), ValueError, "seed must be None or 0 to"),
    (lambda: prefetch(5, 1), TypeError, r"must have __len__ and __getitem__, or __iter__; 5 \(int\) has neither"),
    (lambda: prefetch(Noise, 1), TypeError, "must have __len__"),
    (
        lambda: SequenceMap([1], 1, 3),
        TypeError,
        "function_to_run must be a function, a list of functions or None, not 3",
    ),
    (lambda: SequenceMap([1], 1, []), TypeError, "function_to_run"),
    (lambda: SequenceMap([1], 1, None, max_jobs_at_once=-1), ValueError, "max_jobs_at_once must be"),
    (lambda: SequenceMap([1], 1, None, max_queue_size_pin=0), ValueError, "max_queue_size_pin must be"),
    (lambda: SequenceMap([1], 1, None, max_jobs_at_once="2", max_queue_size=3), TypeError, "max_jobs_at_once must be"),
    (lambda: SequenceMap([1], 1, None, max_jobs_at_once=-1, max_queue_size_pin=3), ValueError, "max_jobs_at_once must"),
    (lambda: SequenceMap([1], 1, None, queue_timeout=0), ValueError, "queue_timeout must be"),
    (lambda: SequenceMap([1], 1, None, collate_fn=4), TypeError, "collate_fn must be"),
    (lambda: SequenceMap(iter([1]), 0, None)[0], TypeError, "has no length"),
    (lambda: SequenceArray({}), TypeError, "arrays must be"),
    (lambda: SequenceArray({"a": [1], "b": [1, 2]}), ValueError, "equal lengths"),
    (lambda: SequenceArray({"a": [1]}, sampler=[1]), ValueError, "positions 1 to 1, allowed are 0 to 0"),
    (lambda: SequenceArray({"a": [1]}, sampler=[0.5]), TypeError, "sampler must be"),
    (lambda: SequenceArray({"a": [1]}).batch(0), ValueError, "batch_size must be an integer >= 1, not 0"),
    (lambda: prefetch(Holder(threading.Lock()), 1), NotPicklableError, r"the sequence\.source\.held .*It is a lock"),
    (lambda: prefetch(Holder({"k": [0, threading.Lock()]}), 1), NotPicklableError, r"held\['k'\]\[1\]"),
    (
        lambda: SequenceMap([1], 1, _returns(threading.Lock())),
        NotPicklableError,
        "variable 'lock'",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[message for *_, message in BAD])
def test_bad_input(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    """Names the argument, the value and what is allowed, before anything is started."""
    with pytest.raises(error, match=message):
        call()


def test_public_names() -> None:
    assert all(getattr(workers, name).__doc__ for name in workers.__all__ if name != "logger")


def test_a_batch_is_nobody_elses() -> None:
    """Also where the sequence keeps what it returns, or gives a part of its data."""

    class Kept(Sequence):
        def __init__(self) -> None:
            super().__init__(seed=1)
            self.kept = np.zeros((4, 3))

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            return self.kept[index], {"whole": self.kept}

    sequence = Kept()
    with sequence.prefetch(0) as serial, sequence.prefetch(1, executor="thread") as threads:
        for row, about in (sequence[0], *sequence, *serial, *threads):
            row[:] = 1
            about["whole"] += 1
    assert not sequence.kept.any()


# -- options of a front-end, and of what is made from it

INHERITED_OPTIONS: dict[str, Any] = {
    "debug_job_report_timeout": 7.0,
    "executor": "thread",
    "in_order": False,
    "job_timeout": 9.0,
    "max_queue_size": 11,
    "max_retries": 5,
    "on_error": "skip",
    "queue_timeout": 0.5,
    "worker_init_fn": print,
    "output": "torch",
}
OTHERS = {
    "debug_job_report_timeout": None,
    "executor": "process",
    "in_order": True,
    "job_timeout": None,
    "max_queue_size": 3,
    "max_retries": 0,
    "on_error": "raise",
    "queue_timeout": 0.1,
    "worker_init_fn": len,
    "output": "torch",
}
WORDS: dict[str, Any] = {
    "map": lambda front, **options: front.map(abs, **options),
    "map, a keyword at a time": lambda front, **options: front.map(abs, 0, None, **options),
    "prefetch": lambda front, **options: front.prefetch(0, **options),
    "prefetch(front)": lambda front, **options: workers.prefetch(front, 0, **options),
    "prefetch(front, shuffle=True)": lambda front, **options: workers.prefetch(front, 0, shuffle=True, **options),
    "prefetch(front, batch_size=2)": lambda front, **options: workers.prefetch(front, 0, batch_size=2, **options),
    "SequenceMap": lambda front, **options: SequenceMap(front, 0, **options),
    "SequenceMap of what is made of it": lambda front, **options: SequenceMap(
        front.batch(2).source_split, 0, **options
    ),
    "batch": lambda front: front.batch(2),
    "rebatch": lambda front: front.batch(2).rebatch(3),
    "sub_batch": lambda front: front.batch(4).sub_batch(3),
    "collate": lambda front: front.collate(),
    "shuffle": lambda front: front.shuffle(),
    "shard": lambda front: front.shard(0, 2),
    "subsample": lambda front: front.subsample(3),
    "subsample_uids": lambda front: front.subsample_uids([1, 2], "x"),
}


def a_front_end(**options: Any) -> Any:
    return SequenceMap(SequenceArray({"x": np.arange(10)}, seed=1), 0, None, **options)


@pytest.mark.parametrize("word", WORDS)
def test_options_that_are_not_given_are_inherited(word: str) -> None:
    pytest.importorskip("torch")
    with a_front_end(**INHERITED_OPTIONS) as front:
        made = WORDS[word](front)
        assert {name: getattr(made, name) for name in INHERITED_OPTIONS} == INHERITED_OPTIONS


@pytest.mark.parametrize("word", list(WORDS)[:8])
@pytest.mark.parametrize("name", INHERITED_OPTIONS)
def test_options_that_are_given_are_not(word: str, name: str) -> None:
    pytest.importorskip("torch")
    if word.startswith("prefetch") and name in ("queue_timeout", "debug_job_report_timeout"):
        return  # it has no such option
    with a_front_end(**INHERITED_OPTIONS) as front:
        made = WORDS[word](front, **{name: OTHERS[name]})
        wanted = {**INHERITED_OPTIONS, name: OTHERS[name]}
        assert {name: getattr(made, name) for name in INHERITED_OPTIONS} == wanted


def test_the_defaults_of_a_front_end_made_of_no_other() -> None:
    with a_front_end() as front:
        assert (front.executor, front.in_order, front.max_retries, front.on_error) == ("process", True, 2, "raise")
        assert (front.job_timeout, front.debug_job_report_timeout, front.queue_timeout) == (None, 30.0, 0.001)
        assert front.max_queue_size is front.worker_init_fn is front.output is None


def test_a_bound_by_another_name_takes_the_place_of_the_inherited_one() -> None:
    with a_front_end(max_queue_size=11) as front:
        assert front.map(abs, max_queue_size_pin=4).max_queue_size == 4
        assert front.map(abs, 2, max_jobs_at_once=3).max_queue_size == 6


def test_the_executor_that_chose_itself_is_no_more() -> None:
    with pytest.raises(ValueError, match=r"executor must be .* report\(\) says where threads would do"):
        a_front_end(executor="auto")
