"""state_dict and load_state_dict: what follows is what would have followed, wherever and by whomever it is taken."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sampler import MultiShotMemorySampler, SingleShotMemorySampler
from workers import Sequence, SequenceArray, SequenceMap, StalePassError, StateError, current_rng, prefetch

PER_EPOCH = 7


class Drawn(Sequence):
    def __len__(self) -> int:
        return PER_EPOCH

    def __getitem__(self, index: int) -> Any:
        return np.array([self.epoch, index, *current_rng().integers(0, 1 << 40, 2)])


class Hooked(Drawn):
    """What its epochs are depends on the draws of all hooks before."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self.told = 0

    def on_epoch_begin(self) -> None:
        self.told = self.told * 31 + int(np.random.randint(1000))

    def on_epoch_end(self) -> None:
        self.told = self.told * 37 + int(np.random.randint(1000))

    def __getitem__(self, index: int) -> Any:
        return np.concatenate([super().__getitem__(index), [self.told]])


class Stream:
    def __iter__(self) -> Any:
        return iter(np.arange(PER_EPOCH))


def noisy(batch: Any) -> Any:
    return batch + current_rng().integers(0, 1 << 40)


def in_two(batch: Any) -> Any:
    return [batch, noisy(batch)]


def augment(x: Any, y: Any, *_: Any) -> Any:
    return x + current_rng().normal(size=x.shape), y


def memory(kind: Any) -> Any:
    x, y = np.arange(80.0).reshape(40, 2), np.arange(40) % 10
    options: dict[str, Any] = {"steps_per_epoch": PER_EPOCH, "augmenter": augment, "seed": 3}
    if kind is SingleShotMemorySampler:
        return kind(x, class_per_batch=3, **options)
    return kind(x, y, classes_per_batch=3, **options)


MAKERS: dict[str, Callable[[int], Any]] = {
    "sequence": lambda workers: Drawn(seed=1),
    "batches": lambda workers: SequenceArray({"x": np.arange(20)}, np.random.permutation, seed=1).batch(3),
    "prefetch": lambda workers: Drawn(seed=1).prefetch(workers),
    "hooks": lambda workers: Hooked(1),
    "hooks, prefetch": lambda workers: Hooked(1).prefetch(workers),
    "list": lambda workers: prefetch(list(range(PER_EPOCH)), workers, seed=1),
    "map of lists": lambda workers: Drawn(seed=1).map(in_two, workers),
    "map of map": lambda workers: Drawn(seed=1).map(noisy, 0).map(noisy, workers),
    "stream": lambda workers: SequenceMap(Stream(), workers, noisy, seed=1),
    "stream of lists": lambda workers: SequenceMap(Stream(), workers, in_two, seed=1),
    "single shot": lambda workers: memory(SingleShotMemorySampler).prefetch(workers),
    "multi shot": lambda workers: memory(MultiShotMemorySampler).prefetch(workers),
    "threads": lambda workers: Drawn(seed=1).prefetch(workers, executor="thread"),
    "shard": lambda workers: Drawn(seed=1).shard(1, 2).prefetch(workers),
}


def told(batch: Any) -> str:
    return repr(batch.tolist() if isinstance(batch, np.ndarray) else batch)


def passes(sequence: Any, count: int) -> list[str]:
    """All that ``count`` passes deliver."""
    return [told(batch) for _ in range(count) for batch in sequence]


def close(sequence: Any) -> None:
    sequence.close()
    if hasattr(sequence, "source_split") and hasattr(sequence.source_split, "close"):
        sequence.source_split.close()


@pytest.mark.parametrize("name", MAKERS)
def test_what_follows(name: str) -> None:
    """At each step of two epochs: twice in a row, in a new object, with other numbers of workers."""
    make = MAKERS[name]
    sequence = make(2)
    states, delivered = [sequence.state_dict()], []
    for _ in range(2):
        for batch in sequence:
            delivered.append(told(batch))
            states.append(sequence.state_dict())
    expected = delivered + passes(sequence, 1)
    close(sequence)
    assert all(json.loads(json.dumps(state)) == state for state in states)
    others = [make(workers) for workers in (0, 2)]
    for step, state in enumerate(states):
        if step % 3 == 2:
            continue
        for at, workers in enumerate((0, 2)):
            if name.startswith("hooks"):  # these do not go back
                close(others[at])
                others[at] = make(workers)
            other = others[at]
            other.load_state_dict(json.loads(json.dumps(state)))
            assert other.state_dict() == state
            other.load_state_dict(state)
            assert passes(other, 3 - state["epoch"]) == expected[step:], (step, state)
    for other in others:
        close(other)


@pytest.mark.parametrize("name", ["sequence", "prefetch", "map of lists", "stream"])
def test_loading_within_a_loop(name: str) -> None:
    """The loop is over, and the next one goes on from there."""
    sequence = MAKERS[name](2)
    loop = iter(sequence)
    some = [told(next(loop)) for _ in range(3)]
    state = sequence.state_dict()
    rest = [told(next(loop)) for _ in range(3)]
    sequence.load_state_dict(state)
    with pytest.raises(StalePassError, match="a state was loaded"):
        next(loop)
    loop = iter(sequence)
    assert [told(next(loop)) for _ in range(3)] == rest
    sequence.epoch = 0
    assert passes(sequence, 1)[:6] == some + rest
    close(sequence)


@pytest.mark.parametrize("source", [Drawn, Stream])
def test_out_of_order(source: Any) -> None:
    """Each batch of the epoch once, before or after."""

    def made(workers: int, in_order: bool) -> SequenceMap:
        return SequenceMap(source(), workers, noisy, seed=1, in_order=in_order)

    with made(2, False) as batches:
        expected = {told(batch) for batch in batches}
        batches.epoch = 0
        for taken in range(1, PER_EPOCH):
            batches.epoch = 0
            before = {told(batch) for batch in itertools.islice(batches, taken)}
            state = json.loads(json.dumps(batches.state_dict()))
            with made(1, True) as others:
                others.load_state_dict(state)
                after = {told(batch) for batch in others}
            assert len(before) == taken
            assert not before & after
            assert before | after == expected


@pytest.mark.parametrize("remainder", ["drop", "pad"])
def test_ranks(remainder: str) -> None:
    """Disjoint, equally many steps; the number of ranks may change."""
    whole = [told(batch) for batch in Drawn(seed=1)]

    def ranks(world: int, state: Any, steps: int | None) -> tuple[list[str], list[Any]]:
        found, states = [], []
        for rank in range(world):
            with Drawn(seed=1).shard(rank, world, remainder) as part, part.prefetch(rank % 2) as batches:
                if state is not None:
                    batches.load_state_dict(state)
                found.append([told(batch) for batch in itertools.islice(batches, steps)])
                states.append(batches.state_dict())
        return [each for step in zip(*found, strict=True) for each in step], states

    three, _ = ranks(3, None, None)
    assert three == (whole[:6] if remainder == "drop" else whole + whole[:2])
    two, states = ranks(2, None, 2)
    assert states[0] == states[1]
    rest, _ = ranks(3, states[0], None)
    assert two + rest == whole
    assert len(Drawn(seed=1).shard(0, 3, remainder)) == (2 if remainder == "drop" else 3)


def test_what_is_made_of_a_shard() -> None:
    """Its own batches, or an error."""
    with Drawn(seed=1).shard(1, 2).map(noisy, 0) as part, Drawn(seed=1).map(noisy, 0) as whole:
        mine = [told(whole[index]) for index in (1, 3, 5)]
        assert [told(part[index]) for index in range(3)] == mine
        for made in (part.prefetch(0), part.prefetch(1), part.map(lambda batch: batch)):
            with made:
                assert [told(made[index]) for index in range(3)] == mine
                assert passes(made, 1) == mine
                assert made.state_dict()["epoch"] == 1
        with pytest.raises(TypeError, match="shard batches, not samples"):
            part.batch(2)
        with pytest.raises(TypeError, match="shuffle before sharding"):
            part.shuffle()
        with pytest.raises(TypeError, match="only a Sequence that is not sharded yet"):
            part.shard(0, 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_epoch_is_set_in_between(workers: int) -> None:
    """The whole of it comes."""
    with Drawn(seed=1).prefetch(workers) as batches:
        iter(batches)
        for _ in range(3):
            next(batches)
        batches.epoch = 5
        assert [batch[:2].tolist() for batch in batches] == [[5, index] for index in range(PER_EPOCH)]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"seed": 2}, "state is of seed 2, not 1; make the sequence with that seed"),
    ({"length": 8}, "of length 8, not 7"),
    ({"sampler": "Other"}, "of sampler 'Other', not 'Drawn'"),
    ({"fingerprint": "00"}, "of other arguments or data"),
    ({"format": 2}, "format 2, but this version reads format 1"),
    ({"batch": 8}, "at no place in an epoch of 7 batches"),
    ({"batch": 7}, "at no place"),
    ({"batch": 4, "apart": [3]}, "at no place"),
    ({"batch": 4, "apart": [5, 5]}, "at no place"),
    ({"apart": [7]}, "at no place"),
    ({"partial": [3, 1]}, "at no place"),
    ({"batch": 4, "partial": [3, 0]}, "at no place"),
    ({"batch": -1}, "batch of a state must be of integers >= 0"),
    ({"epoch": 1 << 60}, "epoch of a state must be at most"),
    ({"epoch": True}, "epoch of a state must be of integers"),
    ({"apart": 3}, "apart of a state must be a list"),
    ({"partial": [1]}, "partial of a state must be a list of 2"),
    ({"more": 1}, "state must have the keys"),
    # What JSON does not make, or a file that was tampered with:
    ({"seed": 10**6000}, "seed of a state must be of integers"),
    ({"seed": True}, "seed of a state must be of integers"),
    ({"length": 7.0}, "length of a state must be of integers"),
    ({"format": True}, "format of a state must be of integers"),
    ({"epoch": np.int64(1)}, "epoch of a state must be of integers"),
    ({"apart": functools.reduce(lambda inner, _: [inner], range(5000), [])}, "apart of a state must be of integers"),
    ({"sampler": "x" * 10_000_000}, "state is of sampler 'xxx"),
    ({"fingerprint": np.zeros(2)}, "of other arguments or data"),
]


@pytest.mark.parametrize(("change", "text"), WRONG, ids=lambda each: "" if isinstance(each, dict) else each[:40])
def test_what_is_no_state_of_it(change: dict[str, Any], text: str) -> None:
    sequence = Drawn(seed=1)
    state = sequence.state_dict()
    with pytest.raises(StateError, match=text) as raised:
        sequence.load_state_dict({**state, **change})
    assert len(str(raised.value)) < 500
    assert sequence.state_dict() == state


@pytest.mark.parametrize("make", [Hooked, lambda seed: prefetch(Hooked(seed), 0)])
@pytest.mark.parametrize("batch", [0, 3])
def test_a_state_too_many_hooks_away(make: Callable[[int], Any], batch: int) -> None:
    """Is refused before the first one is called. Who sets the epoch can load it; and without hooks it takes no time."""
    sequence = make(1)
    source = getattr(sequence, "source_split", sequence)
    state = {**sequence.state_dict(), "epoch": 10_000_000, "batch": batch}
    with pytest.raises(
        StateError, match=r"epoch 10,000,000, .* from epoch 0 .* 100,000 epochs at most.* set its epoch"
    ):
        sequence.load_state_dict(state)
    assert (sequence.epoch, source.told) == (0, 0)
    sequence.epoch = 10_000_000
    sequence.load_state_dict(state)
    assert next(iter(sequence))[:2].tolist() == [10_000_000, batch]
    plain = Drawn(seed=1)
    plain.load_state_dict({**plain.state_dict(), "epoch": 10_000_000, "batch": batch})
    assert next(iter(plain))[:2].tolist() == [10_000_000, batch]


def test_another_sampler() -> None:
    state = memory(SingleShotMemorySampler).state_dict()
    options: dict[str, Any] = {"class_per_batch": 4, "steps_per_epoch": PER_EPOCH, "augmenter": augment, "seed": 3}
    other = SingleShotMemorySampler(np.arange(80.0).reshape(40, 2), **options)
    with pytest.raises(StateError, match="of a SingleShotMemorySampler of other arguments or data"):
        other.load_state_dict(state)
    with pytest.raises(TypeError, match="state must be a dict"):
        memory(SingleShotMemorySampler).load_state_dict("state")
    hooked = Hooked(1)
    state = hooked.state_dict()
    passes(hooked, 1)
    with pytest.raises(StateError, match="load it into a new Hooked"):
        hooked.load_state_dict(state)


TRAINING = textwrap.dedent(
    """
    import hashlib, json, os, sys
    import numpy as np
    from sampler import SingleShotMemorySampler
    from workers import current_rng

    def augment(x, y, *_):
        return x + current_rng().normal(size=x.shape), y

    folder, workers = sys.argv[1], int(sys.argv[2])
    seq = SingleShotMemorySampler(np.eye(50), augment, class_per_batch=4, steps_per_epoch=20, seed=7)
    weights = 0.0
    with seq.prefetch(nb_workers=workers) as batches:
        if os.path.exists(folder + "/state"):
            saved = json.load(open(folder + "/state"))
            batches.load_state_dict(saved["data"])
            weights = saved["weights"]
        while batches.epoch < 3:
            for x, y in batches:
                weights = weights * 0.9 + float(x.sum())
                print(json.dumps([weights, hashlib.sha256(x.tobytes()).hexdigest()]), flush=True)
                with open(folder + "/new", "w") as file:
                    json.dump({"data": batches.state_dict(), "weights": weights}, file)
                os.replace(folder + "/new", folder + "/state")
    """
)


def test_killed_in_the_middle(tmp_path: Path) -> None:
    """kill -9 at any moment, again and again, each time with other workers: the same numbers as without."""

    def start(folder: Path, workers: int) -> Any:
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-c", TRAINING, str(folder), str(workers)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])

    expected = start(tmp_path / "whole", 2).communicate(timeout=60)[0].split("\n")
    assert len(expected) == 61
    found: list[str] = []
    for workers, until in ((2, 13), (0, 11), (1, 25), (2, None)):
        process = start(tmp_path / "killed", workers)
        for count, line in enumerate(process.stdout):
            state = tmp_path / "killed" / "state"
            found.append(line.rstrip("\n"))
            if until is not None and count >= until:
                os.kill(process.pid, signal.SIGKILL)
                break
        # What was printed and not saved any more is printed again.
        rest = process.stdout.read().split("\n")
        process.stdout.close()
        process.wait(60)
        found += [line for line in rest if line]
        if until is not None:
            weights = json.loads(state.read_text())["weights"]
            while json.loads(found[-1])[0] != weights:
                found.pop()
    assert found == expected[:-1]


FITTING = textwrap.dedent(
    """
    import json, os, sys
    import numpy as np
    import keras
    from sampler import SingleShotMemorySampler
    from workers import ResumeSequence, current_rng

    def augment(x, y, *_):
        return x + current_rng().normal(size=x.shape).astype("float32"), y

    folder, die_in = sys.argv[1], int(sys.argv[2])
    seq = SingleShotMemorySampler(np.eye(20, dtype="float32"), augment, class_per_batch=4, steps_per_epoch=5, seed=7)
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(20)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    class Die(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2 and seq.epoch == die_in:
                os.kill(os.getpid(), 9)

    resume = [ResumeSequence(seq, folder + "/sequence.json"), keras.callbacks.BackupAndRestore(folder + "/weights")]
    model.fit(seq, epochs=4, shuffle=False, verbose=0, callbacks=[*resume, Die()])
    print(json.dumps([float(weight.sum()) for weight in model.get_weights()]), seq.epoch, os.listdir(folder))
    """
)


@pytest.mark.needs("keras")
def test_fit_is_killed(tmp_path: Path) -> None:
    """With ResumeSequence and BackupAndRestore: the same weights as without."""

    def fit(folder: Path, die_in: int) -> tuple[int, str]:
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-c", FITTING, str(folder), str(die_in)]
        here = Path(__file__).parents[2]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, cwd=here, timeout=120)
        return done.returncode, done.stdout

    code, expected = fit(tmp_path / "whole", -1)
    assert (code, expected.split()[-2:]) == (0, ["4", "[]"])
    assert fit(tmp_path / "killed", 2)[0] == -signal.SIGKILL
    assert fit(tmp_path / "killed", -1) == (0, expected)


# -- an error is raised while samples before it are still to come


class Failing:
    """Of items 0 to 7, 1 and 5 cannot be computed."""

    def __init__(self, length: int = 8) -> None:
        self.length = length

    def __iter__(self) -> Iterator[Any]:
        return iter(np.arange(self.length))


class FailingWithIndex(Failing):
    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return np.int64(index)


def twice(item: Any) -> Any:
    if item % 4 == 1:
        raise LookupError(f"item {item}")
    return [np.full(2, item), np.full(2, item)]


def rest_of(iterator: Any) -> list[Any]:
    outcomes: list[Any] = []
    while True:
        try:
            outcomes.append(np.asarray(next(iterator)).tolist())
        except StopIteration:
            return outcomes
        except LookupError as error:
            outcomes.append(str(error))


@pytest.mark.parametrize("nb_workers", [0, 2])
@pytest.mark.parametrize("source", [Failing, FailingWithIndex])
def test_a_state_behind_an_error(source: Any, nb_workers: int) -> None:
    """The error is not raised again, and the samples before it come."""

    def opened() -> Any:
        return prefetch(source(), nb_workers, seed=0).map(twice).rebatch(3)

    with opened() as whole:
        outcomes = rest_of(iter(whole))
    assert [each for each in outcomes if isinstance(each, str)] == ["item 1", "item 5"]
    for number in (1, outcomes.index("item 5") + 1) if nb_workers else range(len(outcomes)):
        with opened() as before, opened() as after:
            iterator = iter(before)
            for _ in range(number):
                with contextlib.suppress(LookupError):
                    next(iterator)
            after.load_state_dict(before.state_dict())
            assert rest_of(iter(after)) == outcomes[number:]


def test_ranks_do_not_stand_behind_such_an_error() -> None:
    with prefetch(FailingWithIndex(16), 0, seed=0).shard(0, 2).map(later).rebatch(3) as batches:
        iterator = iter(batches)
        with pytest.raises(LookupError):
            next(iterator)
        with pytest.raises(StateError, match="take the state after the next batch"):
            batches.state_dict()
        assert next(iterator).tolist() == [0, 0, 4]
        state = batches.state_dict()
        rest = rest_of(iterator)
    with prefetch(FailingWithIndex(16), 0, seed=0).shard(0, 2).map(later).rebatch(3) as batches:
        batches.load_state_dict(state)
        assert rest_of(iter(batches)) == rest


def later(item: Any) -> Any:
    if item == 2:
        raise LookupError("item 2")
    return np.full(2, item)


@pytest.mark.parametrize("remainder", ["pad", "drop"])
@pytest.mark.parametrize("world", [2, 4])
def test_a_rank_within_its_last_batch(world: int, remainder: Any) -> None:
    """Of an epoch that the ranks do not share evenly."""

    def opened(rank: int) -> Any:
        batches = prefetch(FailingWithIndex(9), 0, seed=0).shard(rank, world, remainder)
        return batches.map(functools.partial(np.full, 2)).rebatch(3)

    for rank in range(world):
        with opened(rank) as whole:
            found, states = [], []
            for batch in whole:
                found.append(batch.tolist())
                states.append(json.dumps(whole.state_dict()))
        for number, state in enumerate(states[:-1], 1):
            with opened(rank) as after:
                after.load_state_dict(json.loads(state))
                assert [batch.tolist() for batch in after] == found[number:]
