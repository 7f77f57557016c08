"""Items of a generator function: they come while it still yields, the same on any workers, with errors and deaths."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import at_random, scripted

import workers
from workers import Sequence, SequenceMap, current_job, current_rng

WORKERS: dict[str, dict[str, Any]] = {
    "none": {"nb_workers": 0},
    "one": {"nb_workers": 1},
    "two": {"nb_workers": 2},
    "one job ahead": {"nb_workers": 2, "max_queue_size": 1},
    "threads": {"nb_workers": 2, "executor": "thread"},
    "auto": {"nb_workers": "auto"},
}
SHARDS = 6
PAUSE_S = 0.009  # longer than the time between two portions


class Shards(Sequence[int]):
    """The numbers of shards. Shard ``n`` has ``1 + 2 * n % 5`` samples."""

    def __len__(self) -> int:
        return SHARDS

    def __getitem__(self, index: int) -> int:
        return index


def size(shard: int) -> int:
    return 1 + 2 * shard % 5


def read(shard: int, pause_s: float = PAUSE_S) -> Iterator[dict[str, Any]]:
    for number in range(size(shard)):
        time.sleep(pause_s)
        yield {"x": np.full(3, 10 * shard + number), "drawn": current_rng().random()}


def read_fast(shard: int) -> Iterator[dict[str, Any]]:
    yield from read(shard, 0)


def draw(sample: dict[str, Any]) -> dict[str, Any]:
    return {**sample, "more": current_rng().random()}


def several(sample: dict[str, Any]) -> list[dict[str, Any]]:
    """None, one or two for each."""
    return [sample] * (int(sample["x"][0]) % 3)


def lists(shard: int) -> list[Any]:
    return [shard, shard]


def large(shard: int) -> Iterator[np.ndarray]:
    """Written where the loop gets them; the second array is reused, as is the memory of the last."""
    buffer = np.zeros(20_000)
    for number in range(size(shard)):
        time.sleep(PAUSE_S)
        made = workers.empty(20_000)
        made[:] = 10 * shard + number
        yield made
        buffer[:] = 1000 + 10 * shard + number
        yield buffer


def batches(shard: int) -> Iterator[dict[str, Any]]:
    """Of one, two and three samples."""
    for number in range(size(shard)):
        time.sleep(PAUSE_S)
        length = 1 + (shard + number) % 3
        yield {"x": np.arange(length) + 10 * shard, "drawn": current_rng().random(length)}


def total(samples: list[Any]) -> Any:
    return sum(int(sample["x"][0]) for sample in samples)


def rows(batch: Any) -> Any:
    if isinstance(batch, dict):
        return {name: np.asarray(value).tolist() for name, value in batch.items()}
    return [float(batch[0]), float(batch[-1]), len(batch)] if isinstance(batch, np.ndarray) else batch


CHAINS: dict[str, Callable[[], Sequence[Any]]] = {
    "items": lambda: Shards(seed=1).map(read),
    "fast": lambda: Shards(seed=1).map(read_fast),
    "items, shuffled": lambda: Shards(seed=1).shuffle().map(read),
    "functions behind": lambda: Shards(seed=1).map(read).map(draw).map(several).map(draw),
    "batches": lambda: Shards(seed=1).map(read).map(draw).batch(4),
    "whole batches": lambda: Shards(seed=1).map(read).batch(4, discard_batch_not_full=True),
    "collated": lambda: Shards(seed=1).map(read).batch(4, collate_fn=total),
    "rebatched": lambda: Shards(seed=1).map(batches).rebatch(4),
    "of lists": lambda: Shards(seed=1).map(lists).map(read),
    "large": lambda: Shards(seed=1).map(large),
    "a rank": lambda: Shards(seed=1).shard(1, 2).map(read).batch(2),
    "of an iterable": lambda: SequenceMap(iterable(), 0, seed=1).map(read).batch(4),
    "interleaved": lambda: Shards(seed=1).interleave(read, 4).map(draw).batch(4),
    "interleaved blocks": lambda: SequenceMap(iterable(), 0, seed=1).interleave(read, 2, block_length=2),
    "a list of functions": lambda: Shards(seed=1).map([int, read]).batch(4),
}


class iterable:
    def __iter__(self) -> Iterator[int]:
        return iter(range(SHARDS))


@pytest.mark.parametrize("chain", CHAINS)
def test_the_same_with_any_workers(chain: str) -> None:
    found = {}
    for kind, options in WORKERS.items():
        with CHAINS[chain]().prefetch(**options) as loop:
            found[kind] = [[rows(batch) for batch in loop] for _ in range(2)]
    assert [kind for kind in WORKERS if found[kind] != found["none"]] == []
    assert len(found["none"][0]) >= 3


def test_what_comes() -> None:
    every = [10 * shard + number for shard in range(SHARDS) for number in range(size(shard))]
    with CHAINS["items"]().prefetch(2) as loop:
        assert [int(sample["x"][0]) for sample in loop] == every
    with CHAINS["batches"]().prefetch(2) as loop:
        assert [batch["x"][:, 0].tolist() for batch in loop] == [every[at : at + 4] for at in range(0, len(every), 4)]
    with CHAINS["large"]().prefetch(2) as loop:
        assert [int(item[0]) for item in loop] == [each + more for each in every for more in (0, 1000)]


def test_the_order_of_interleaved_items() -> None:
    """In turn; those that are left when one has ended go on; then the next ones begin."""
    expected: list[int] = []
    for first in range(0, SHARDS, 4):
        shards = range(first, min(first + 4, SHARDS))
        left = [[10 * shard + number for number in range(size(shard))] for shard in shards]
        while left:
            each = left.pop(0)
            expected += each[:2]
            left += [each[2:]] * (len(each) >= 2)
    with Shards(seed=1).interleave(read_fast, 4, block_length=2).prefetch(2) as loop:
        assert [int(sample["x"][0]) for sample in loop] == expected
    with Shards(seed=1).interleave(lists, 3).prefetch(2) as loop:
        assert list(loop) == [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((None, 2), TypeError, "function must be a function, not None"),
        ((read, 0), ValueError, "cycle_length must be an integer >= 1, not 0"),
        ((read, 2, 0), ValueError, "block_length must be an integer >= 1, not 0"),
    ],
)
def test_wrong_arguments_of_interleave(arguments: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Shards().interleave(*arguments)


def test_what_is_kept_is_not_overwritten() -> None:
    with CHAINS["large"]().prefetch(2) as loop:
        kept = list(loop)
        assert all((item == item[0]).all() for item in kept)
        assert len({item[0] for item in kept}) == len(kept)


class Waiting(Sequence[str]):
    """Each shard yields its second sample when the loop has got the first one of the first shard."""

    def __init__(self, folder: Path) -> None:
        super().__init__(seed=1)
        self.file = str(folder / "got")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> str:
        return self.file


def wait(file: str) -> Iterator[int]:
    yield 0
    yield 1
    deadline = time.monotonic() + 60
    while not os.path.exists(file):
        assert time.monotonic() < deadline, "the first item has not come while the function runs"
        time.sleep(0.01)
        yield 2  # a portion is sent when a further item comes


@pytest.mark.parametrize("options", [WORKERS["one"], WORKERS["two"], WORKERS["threads"]], ids=["one", "two", "threads"])
def test_an_item_comes_while_its_function_runs(options: dict[str, Any], tmp_path: Path) -> None:
    with Waiting(tmp_path).map(wait).prefetch(**options) as loop:
        for _ in loop:
            (tmp_path / "got").touch()


# -- states


@pytest.mark.parametrize("chain", ["items", "functions behind", "batches", "rebatched", "a rank", "of an iterable"])
@pytest.mark.parametrize(("first", "second"), [("two", "none"), ("none", "two"), ("two", "threads"), ("auto", "two")])
def test_states(chain: str, first: str, second: str) -> None:
    """Taken after each batch, and gone on from with other workers."""
    with CHAINS[chain]().prefetch(**WORKERS[first]) as loop, CHAINS[chain]().prefetch(**WORKERS[second]) as other:
        got, states = [], []
        for batch in loop:
            got.append(rows(batch))
            states.append(loop.state_dict())
        for number, state in enumerate(states[:-1:2]):
            other.load_state_dict(state)
            assert [rows(batch) for batch in other] == got[2 * number + 1 :], number


# -- errors


def failing(shard: int) -> Iterator[dict[str, Any]]:
    for number, sample in enumerate(read(shard)):
        if (shard, number) in ((1, 1), (4, 2)):
            raise ValueError(f"sample {number} of shard {shard}")
        yield sample


def behind(sample: dict[str, Any]) -> dict[str, Any]:
    if int(sample["x"][0]) in (11, 42):
        raise ValueError(f"sample {sample['x'][0]}")
    return sample


FAILING: dict[str, Callable[[], Sequence[Any]]] = {
    "in the generator": lambda: Shards(seed=1).map(failing),
    "behind it": lambda: Shards(seed=1).map(read).map(behind),
    "batches": lambda: Shards(seed=1).map(failing).batch(3),
    "a rank": lambda: Shards(seed=1).shard(1, 2).map(failing).batch(3),
    "of an iterable": lambda: SequenceMap(iterable(), 0, seed=1).map(failing),
}


def told(loop: Any, error: Any = ValueError, read: Callable[[Any], Any] = rows, then: Any = None) -> list[Any]:
    """What a loop gets that goes on behind errors, whose texts stand in their places. ``then`` is called each time."""
    got: list[Any] = []
    iterator = iter(loop)
    for _ in range(100):
        try:
            got.append(read(next(iterator)))
        except error as raised:
            got.append(str(raised))
        except StopIteration:
            break
        if then is not None:
            then()
    return got


def first_column(batch: Any) -> Any:
    return np.asarray(batch)[:, 0].tolist()


@pytest.mark.parametrize("chain", FAILING)
@pytest.mark.parametrize("on_error", ["raise", "skip", "retry"])
def test_errors(chain: str, on_error: Any) -> None:
    """The items before it come first; then the error in its place, then the next shard."""
    found = {}
    for kind, options in WORKERS.items():
        with FAILING[chain]().prefetch(**options, on_error=on_error, max_retries=1) as loop:
            found[kind] = told(loop)
    assert [kind for kind in WORKERS if found[kind] != found["none"]] == []
    errors = [each for each in found["none"] if isinstance(each, str)]
    assert len(errors) == (0 if on_error == "skip" else 1 if chain == "a rank" else 2)
    samples = [each[0] for each in found["none"] if isinstance(each, dict) for each in np.reshape(each["x"], (-1, 3))]
    shards = range(1, SHARDS, 2) if chain == "a rank" else range(SHARDS)
    failed = {1: 1, 4: 2}
    assert samples == [10 * shard + number for shard in shards for number in range(failed.get(shard, size(shard)))]


@pytest.mark.parametrize("chain", ["in the generator", "batches", "a rank"])
@pytest.mark.parametrize("kind", ["none", "two", "threads"])
def test_states_around_errors(chain: str, kind: str) -> None:
    with FAILING[chain]().prefetch(**WORKERS[kind]) as loop, FAILING[chain]().prefetch(2) as other:
        states: list[Any] = []

        def take() -> None:
            try:
                states.append(loop.state_dict())
            except workers.StateError:  # another rank could not go on from here
                assert chain == "a rank"
                states.append({})

        got = told(loop, then=take)
        assert all(state or isinstance(each, str) for each, state in zip(got, states, strict=True))
        for number, state in enumerate(states[:-1]):
            if state:
                other.load_state_dict(state)
                found = told(other)
                if chain == "batches" and isinstance(got[number], str):  # samples before the error are not delivered
                    assert found.pop(0) == got[number]
                assert found == got[number + 1 :], (number, got[number])


def fails_once(folder: str, shard: int) -> Iterator[dict[str, Any]]:
    for number, sample in enumerate(read(shard)):
        job = current_job()
        if shard == 2 and number == 3 and job is not None and job.attempt == 0:
            raise OSError("a slow disk")
        yield sample


@pytest.mark.parametrize("kind", WORKERS)
def test_a_retry_delivers_nothing_twice(kind: str) -> None:
    with CHAINS["items"]().prefetch(0) as loop:
        expected = [rows(sample) for sample in loop]
    with Shards(seed=1).map(FailsOnce()).prefetch(**WORKERS[kind], on_error="retry") as loop:
        assert [rows(sample) for sample in loop] == expected


class FailsOnce:
    def __call__(self, shard: int) -> Iterator[dict[str, Any]]:
        return fails_once("", shard)


# -- workers that die


def dying(shard: int) -> Iterator[dict[str, Any]]:
    for number, sample in enumerate(read(shard)):
        job = current_job()
        assert job is not None
        if shard in (2, 4) and number == shard // 2 + 1 and job.attempt == 0 and job.worker is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        yield sample


@pytest.mark.parametrize("end", ["items", "batches"])
@pytest.mark.parametrize("kind", ["one", "two", "one job ahead"])
def test_a_worker_that_dies_in_the_middle(kind: str, end: str) -> None:
    """Its shard is read again, and what has come of it is left out."""
    made = Shards(seed=1).map(dying)
    with (made if end == "items" else made.map(draw).batch(4)).prefetch(**WORKERS[kind]) as loop:
        found = [rows(sample) for sample in loop]
        assert len([each for each in loop.report().timeline.incidents if each.kind == "died"]) >= 2
    with CHAINS[end]().prefetch(0) as loop:
        assert found == [rows(sample) for sample in loop]


def deadly(shard: int) -> Iterator[dict[str, Any]]:
    for number, sample in enumerate(read(shard)):
        if shard == 2 and number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        yield sample


def test_a_shard_that_ends_each_worker() -> None:
    """The error comes in its place, behind what was yielded before, and then the next shard."""
    with Shards(seed=1).map(deadly).prefetch(2) as loop:
        found, iterator = [], iter(loop)
        while True:
            try:
                found.append(int(next(iterator)["x"][0]))
            except workers.WorkerError:
                found.append(-1)
            except StopIteration:
                break
    at = found.index(-1)
    assert found[at + 1 :] == [10 * shard + number for shard in range(3, SHARDS) for number in range(size(shard))]
    every = [10 * shard + number for shard in range(3) for number in range(size(shard))]
    assert found[:at] == every[:at]


# -- others


class MakesGenerators:
    """Its first job in a process makes a generator that the sequence can reach, after some items. It is faster then."""

    def __init__(self) -> None:
        self.generator: Any = None

    def __call__(self, shard: int) -> Iterator[Any]:
        return self.read(shard)

    def read(self, shard: int) -> Iterator[Any]:
        for number in range(5):
            if self.generator is None:
                time.sleep(PAUSE_S)
            if number == 2 and self.generator is None:
                self.generator = random.Random(5)
            drawn = current_rng().random()
            yield shard, number, drawn, self.generator.random() if number > 1 else 0.0


def test_a_generator_made_in_the_middle_of_a_job() -> None:
    """The job runs again, seeded, and nothing comes that was drawn before it was."""
    found = {}
    for kind, options in WORKERS.items():
        with Shards(seed=1).map(MakesGenerators()).prefetch(**options) as loop:
            found[kind] = list(loop)
    del found["threads"]  # which share the generator
    assert [kind for kind in found if found[kind] != found["none"]] == []
    drawn = [each[3] for each in found["none"] if each[1] > 1]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("every", [0.1, 0.5])
def test_auto_that_changes_its_mind(every: float) -> None:
    with CHAINS["batches"]().prefetch(0) as loop:
        expected = [rows(batch) for _ in range(4) for batch in loop]
    with CHAINS["batches"]().prefetch() as loop:
        scripted(loop, at_random(3, every))
        assert [rows(batch) for _ in range(4) for batch in loop] == expected


def test_as_they_come() -> None:
    with CHAINS["items"]().prefetch(2, in_order=False) as loop, CHAINS["items"]().prefetch(0) as other:
        found, expected = ([rows(sample) for sample in each] for each in (loop, other))
        assert sorted(map(str, found)) == sorted(map(str, expected))


def test_an_early_end_and_a_new_pass() -> None:
    with CHAINS["items"]().prefetch(2) as loop:
        expected = [rows(sample) for sample in loop]
        for number in (1, 3, 4):
            loop.epoch = 0
            assert [rows(sample) for sample in itertools.islice(loop, number)] == expected[:number]
        loop.epoch = 0
        assert [rows(sample) for sample in loop] == expected


@pytest.mark.needs("torch")
def test_tensors() -> None:
    with CHAINS["items"]().prefetch(2) as loop, CHAINS["items"]().prefetch(2, output="torch") as other:
        assert [rows(sample) for sample in other] == [rows(sample) for sample in loop]


def test_what_cannot_follow() -> None:
    made = CHAINS["batches"]()
    others = [CHAINS["rebatched"](), Shards().map(lists).batch(2).rebatch(3), Shards().batch(2).rebatch(3)]
    for each in (made, made.prefetch(0), *others):
        with pytest.raises(TypeError, match=r"known only|only a loop"):
            each[0]
    for follow in (
        lambda: made.map(rows),
        made.shuffle,
        lambda: made.batch(2),
        lambda: made.rebatch(2),
        lambda: made.shard(0, 2),
    ):
        with pytest.raises(TypeError, match=r"behind a generator function, are put together in the consumer"):
            follow()


def test_items_that_cannot_be_batched() -> None:
    with Shards(seed=1).map(read).batch(4, collate_fn=fail).prefetch(2) as loop, pytest.raises(ValueError, match="no"):
        list(loop)


def fail(samples: list[Any]) -> Any:
    raise ValueError("no")


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("no pickle")


def unpicklable(shard: int, pause_s: float) -> Iterator[Any]:
    for number in range(4):
        time.sleep(pause_s)
        yield Unpicklable() if (shard, number) == (1, 3) else 10 * shard + number


@pytest.mark.parametrize("pause_s", [0, PAUSE_S])
def test_items_before_one_that_cannot_be_sent(pause_s: float) -> None:
    with Shards(seed=1).map(functools.partial(unpicklable, pause_s=pause_s)).prefetch(2) as loop:
        found, iterator = [], iter(loop)
        for _ in range(12):
            try:
                found.append(next(iterator))
            except TypeError:
                found.append(-1)
    assert found == [0, 1, 2, 3, 10, 11, 12, -1, 20, 21, 22, 23]


def endless(shard: int) -> Iterator[int]:
    for number in itertools.count():
        time.sleep(0.001)
        yield number


@pytest.mark.parametrize("kind", ["one", "two", "threads"])
def test_a_job_that_nobody_waits_for_ends_when_it_yields(kind: str) -> None:
    """Also one that would never end."""
    with Shards(seed=1).map(endless).prefetch(**WORKERS[kind]) as loop:
        for _ in range(3):
            loop.epoch = 0
            assert list(itertools.islice(loop, 30)) == list(range(30))


@pytest.mark.parametrize(("chain", "first"), [("items", 20), ("batches", 12)])
def test_a_shard_that_no_longer_fails(chain: str, first: int) -> None:
    """A state from behind its last item: the next shard comes."""
    with failing_at_the_end(chain, True).prefetch(2) as loop, failing_at_the_end(chain, False).prefetch(2) as other:
        state: Any = None
        with contextlib.suppress(ValueError):
            for _ in loop:
                state = loop.state_dict()
        other.load_state_dict(state)
        assert np.ravel(rows(next(iter(other)))["x"])[0] == first


class FailsAtTheEnd:
    def __init__(self, fails: bool) -> None:
        self.fails = fails

    def __call__(self, shard: int) -> Iterator[dict[str, Any]]:
        yield from read(shard)
        if self.fails and shard == 1:
            raise ValueError("at the end")


def failing_at_the_end(chain: str, fails: bool) -> Sequence[Any]:
    made = Shards(seed=1).map(FailsAtTheEnd(fails))
    return made if chain == "items" else made.batch(3)


@pytest.mark.needs("torch")
@pytest.mark.parametrize("executor", ["process", "thread"])
def test_ctrl_c_while_batches_become_tensors(executor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each call of the function that makes them: the batch still comes."""
    with CHAINS["batches"]().prefetch(2, executor=executor, output="torch") as loop:
        expected = [rows(batch) for batch in loop]
        loop.epoch = 0
        tensors = loop._live.output.tensors
        fails = itertools.cycle([True, False])

        def interrupted(self: Any, batch: Any) -> Any:
            if next(fails):
                raise KeyboardInterrupt
            return made(self, batch)

        made = type(tensors).__call__
        monkeypatch.setattr(type(tensors), "__call__", interrupted)
        got, iterator = [], iter(loop)
        while len(got) < len(expected):
            try:
                got.append(rows(next(iterator)))
            except KeyboardInterrupt:
                continue
        assert got == expected


def test_fit_of_max_samples_is_refused() -> None:
    from workers.sequence.base import count_batches

    for made in (CHAINS["batches"](), CHAINS["rebatched"](), CHAINS["of an iterable"]()):
        with pytest.raises(TypeError, match="max_samples"):
            count_batches(made.max_samples(6))


def no_batch(shard: int, pause_s: float, bad: int) -> Iterator[Any]:
    for number in range(4):
        time.sleep(pause_s)
        yield 5 if (shard, number) == (1, bad) else np.full((2, 2), 10 * shard + number)


@pytest.mark.parametrize("bad", [0, 1, 3])
@pytest.mark.parametrize("size", [1, 3, 4])
def test_an_item_that_is_no_batch(bad: int, size: int) -> None:
    """It raises behind those before it, and ends its shard, however fast they come."""
    found = []
    for pause_s, kind in itertools.product([0, PAUSE_S], ["none", "two", "threads"]):
        function = functools.partial(no_batch, pause_s=pause_s, bad=bad)
        with Shards(seed=1).take(3).map(function).rebatch(size).prefetch(**WORKERS[kind]) as loop:
            found.append(told(loop, TypeError, first_column))
    assert [got != found[0] for got in found] == [False] * 6
    errors = [batch for batch in found[0] if isinstance(batch, str)]
    every = [each for batch in found[0] if not isinstance(batch, str) for each in batch]
    shards = [10 * shard + number for shard in range(3) for number in range(bad if shard == 1 else 4)]
    assert len(errors) == 1
    assert every == [each for each in shards for _ in range(2)]


@pytest.mark.needs("torch")
@pytest.mark.parametrize("options", [WORKERS["none"], WORKERS["two"], {"nb_workers": 2, "output": "torch"}])
@pytest.mark.parametrize("size", [1, 3])
def test_states_around_an_item_that_is_no_batch(options: dict[str, Any], size: int) -> None:
    def made() -> Any:
        function = functools.partial(no_batch, pause_s=PAUSE_S, bad=2)
        loop = Shards(seed=1).take(3).map(function).rebatch(size).prefetch(**options)
        return loop.to_device("cpu", depth=3) if "output" in options else loop

    with made() as loop, made() as other:
        states: list[Any] = []
        got = told(loop, TypeError, first_column, lambda: states.append(loop.state_dict()))
        assert len(got) > 5
        for number, state in enumerate(states[:-1]):
            other.load_state_dict(state)
            found = told(other, TypeError, first_column)
            if isinstance(got[number], str) and found[0] == got[number]:  # samples before it were not delivered
                found.pop(0)
            assert found == got[number + 1 :], number
