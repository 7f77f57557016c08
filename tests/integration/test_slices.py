"""``.take``, ``.skip`` and slices: which batches, with which draws, on any workers, from any state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numbered import Numbered

import workers
from workers import Sequence, SequenceArray, SequenceMap, prefetch

LENGTH = 12


class Drawn(Numbered):
    length = LENGTH


#: {name: (what makes a slice of a sequence, the same of the list of its batches)}
SLICES: dict[str, tuple[Any, Any]] = {
    "take": (lambda of: of.take(5), lambda batches: batches[:5]),
    "more than there are": (lambda of: of.take(100), lambda batches: batches),
    "skip": (lambda of: of.skip(4), lambda batches: batches[4:]),
    "skip none": (lambda of: of.skip(0), lambda batches: batches),
    "skip, take": (lambda of: of.skip(2).take(3), lambda batches: batches[2:5]),
    "[a:b:c]": (lambda of: of[1:10:3], lambda batches: batches[1:10:3]),
    "[::-1]": (lambda of: of[::-1], lambda batches: batches[::-1]),
    "[-3:]": (lambda of: of[-3:], lambda batches: batches[-3:]),
    "of a slice": (lambda of: of[2:][::2][:-1], lambda batches: batches[2:][::2][:-1]),
    "of numpy's integers": (lambda of: of[np.int64(1) : np.int32(4)], lambda batches: batches[1:4]),
}
WORKERS = [(0, "process"), (1, "process"), (3, "process"), (2, "thread"), ("auto", "process")]


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
@pytest.mark.parametrize("is_shuffled", [False, True])
def test_the_batches_of_a_list_that_is_sliced(is_shuffled: bool, nb_workers: Any, executor: str) -> None:
    """With the draws that each has without the slice; the whole order is sliced, in each epoch."""
    for name, (slice_of, of_list) in SLICES.items():
        whole = Drawn(seed=1).shuffle() if is_shuffled else Drawn(seed=1)
        expected = [of_list(list(whole)) for _ in range(2)]
        part = slice_of(Drawn(seed=1).shuffle() if is_shuffled else Drawn(seed=1))
        assert len(part) == len(expected[0]), name
        assert [part[index] for index in range(len(part))] == expected[0], name
        with part.prefetch(nb_workers, executor=executor) as batches:
            assert [list(batches) for _ in range(2)] == expected, name


@pytest.mark.parametrize("stop", [1, 3])
def test_a_state_goes_on_in_a_slice(stop: int) -> None:
    def made() -> Any:
        return Drawn(seed=4).shuffle()[2:9].map(lambda batch: batch[:2], nb_workers=1)

    with made() as batches:
        whole = [list(batches) for _ in range(2)]
    with made() as batches:
        loop = iter(batches)
        got = [next(loop) for _ in range(stop)]
        state = batches.state_dict()
    with made() as batches:
        batches.load_state_dict(state)
        assert [got + list(batches), list(batches)] == whole
    with Drawn(seed=4).shuffle()[2:8].prefetch(0) as other, pytest.raises(workers.StateError, match="Slice"):
        other.load_state_dict(state)


def test_words_behind_a_slice() -> None:
    numbers = SequenceArray({"x": np.arange(20)}, seed=1)
    assert [batch["x"].tolist() for batch in numbers[3:9].batch(4)] == [[3, 4, 5, 6], [7, 8]]
    assert [batch["x"].tolist() for batch in numbers.batch(4)[1:].take(2)] == [[4, 5, 6, 7], [8, 9, 10, 11]]
    shuffled = [int(sample["x"]) for sample in numbers.take(6).shuffle()]
    assert sorted(shuffled) == list(range(6)) != shuffled
    ranks = [[int(sample["x"]) for sample in numbers.skip(13).shard(rank, 2)] for rank in range(2)]
    assert ranks == [[13, 15, 17], [14, 16, 18]]
    lists = prefetch([1, 2, 3], 0).map(lambda number: [number] * number)[1:]
    assert list(lists) == [2, 2, 3, 3, 3]
    collated = SequenceMap(list(range(8)), 0, None, collate_fn=lambda batch, source: batch)[1:7:2].shuffle()[1:]
    assert len(collated) == 2
    assert set(collated) < {1, 3, 5}
    assert [batch["x"].tolist() for batch in numbers.take(4).batch(1).rebatch(3).prefetch(0)] == [[0, 1, 2], [3]]


def test_a_collate_fn_between_two_slices() -> None:
    """The first has left fewer batches than its source has."""
    front = SequenceMap(Drawn(seed=2)[::-2], 0, None, collate_fn=lambda batch, source: batch[0])
    expected = list(range(LENGTH))[::-2]
    assert list(front[2:]) == expected[2:]
    assert list(front.map(str)[1:]) == [str(number) for number in expected[1:]]
    assert sorted(front.shuffle()) == sorted(expected)
    assert len(front.shard(0, 2)) == len(expected) // 2


def test_of_a_sequence_array_the_first_are_taken() -> None:
    numbers = SequenceArray({"x": np.arange(9)}, seed=1)
    assert [int(sample["x"]) for sample in numbers.take(2)] == [0, 1]
    assert numbers.take(np.array([4, 2]))["x"].tolist() == [4, 2]
    assert repr(numbers[2:5]).startswith("<SequenceSlice of SequenceArray: 3 samples, slice [2:5]")


class NoEnd(Sequence[Any]):
    num_batches = None

    def __getitem__(self, index: int) -> Any:
        return index


def test_the_first_of_what_has_no_end() -> None:
    assert list(NoEnd(seed=1).take(3)) == [0, 1, 2]
    assert list(NoEnd(seed=1)[2:8:3]) == [2, 5]


class Within(Sequence[Any]):
    """Its batches are made of slices of another sequence."""

    def __init__(self, other: Any) -> None:
        super().__init__(seed=1)
        self.other = other

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return list(self.other[index : index + 2])


@pytest.mark.parametrize("nb_workers", [0, 1])
def test_a_slice_within_a_job(nb_workers: int) -> None:
    doubled = prefetch([1, 2, 3], 0).map(lambda number: number * 2)
    for other, expected in (
        (doubled, [[2, 4], [4, 6]]),
        (doubled.shuffle()[:], None),
        (SequenceArray({"x": np.arange(3)}).batch(1), None),
    ):
        with Within(other).prefetch(nb_workers) as batches:
            got = list(batches)
        assert [len(batch) for batch in got] == [2, 2]
        assert expected is None or got == expected


def test_a_state_knows_how_many_there_were_before_the_slice() -> None:
    """Else another source, from whose end a slice counts, would go on with other batches."""
    sequence = Growing(12)[-5:]
    loop = iter(sequence)
    next(loop)
    state = sequence.state_dict()
    equal = Growing(12)[-5::1]
    equal.load_state_dict(state)
    assert [batch[0] for batch in equal] == [8, 9, 10, 11]
    with pytest.raises(workers.StateError, match="state is of length 12, not 13"):
        Growing(13)[-5:].load_state_dict(state)


class Hundredfold(SequenceArray):
    def take(self, number: Any) -> Any:
        return {name: array * 100 for name, array in super().take(number).items()}


def test_a_take_of_a_subclass_is_used() -> None:
    batches = Hundredfold({"x": np.arange(4)}, seed=1).batch(2)
    assert [batch["x"].tolist() for batch in batches] == [[0, 100], [200, 300]]


def test_a_source_that_is_empty_yet() -> None:
    class Late(Drawn):
        length = 0

        def __len__(self) -> int:
            return self.length

        def on_epoch_begin(self) -> None:
            self.length = 6

    assert [batch[0] for batch in Late(seed=1).take(3)] == [0, 1, 2]


class Growing(Drawn):
    """An epoch longer each time."""

    def __init__(self, length: int = 3) -> None:
        super().__init__(seed=1)
        self.length = length

    def __len__(self) -> int:
        return self.length

    def on_epoch_end(self) -> None:
        self.length += 1


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_a_length_that_changes(nb_workers: int) -> None:
    """Negative numbers count from the end of that epoch."""
    with Growing()[-2:].prefetch(nb_workers) as batches:
        assert [[batch[0] for batch in batches] for _ in range(3)] == [[1, 2], [2, 3], [3, 4]]


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (lambda: Drawn(seed=1)[5:5], ValueError, r"the slice \[5:5\] of the 12 batches of Drawn is empty"),
        (lambda: Drawn(seed=1).skip(12), ValueError, r"the slice \[12:\] of the 12 batches"),
        (lambda: Drawn(seed=1).take(0), ValueError, "number must be an integer >= 1, not 0"),
        (lambda: Drawn(seed=1).skip(-1), ValueError, "number must be an integer >= 0, not -1"),
        (lambda: Drawn(seed=1).take(2.0), TypeError, "number must be an integer"),
        (lambda: Drawn(seed=1)[::0], ValueError, "the step of a slice must not be 0"),
        (lambda: Drawn(seed=1)["a":], TypeError, "the start of a slice must be an integer or None, not 'a'"),
        (lambda: Drawn(seed=1)[:2.5], TypeError, "the stop of a slice must be an integer"),
        (lambda: Drawn(seed=1).shard(0, 2)[1:], TypeError, r"slice before sharding.*sequence\[a:b\].shard"),
        (lambda: prefetch(iter([1]), 0).take(1), TypeError, "has no indices, so its items cannot be sliced"),
        (lambda: Drawn(seed=1).rebatch(2).take(1), TypeError, "only .prefetch"),
        (lambda: Drawn(seed=1).max_samples(2)[1:], TypeError, "must be the last"),
        (lambda: SequenceArray({"x": np.arange(3)}).take(2).subsample(1), TypeError, "before the slice"),
        (lambda: SequenceArray({"x": np.arange(3)}).take(True), TypeError, "number must be an integer"),
        (lambda: SequenceArray({"x": np.arange(3)}).take(2.0), TypeError, "number must be an integer"),
        (lambda: SequenceArray({"x": np.arange(3)}).take(None), TypeError, "number must be an integer"),
        (
            lambda: SequenceArray({"x": np.arange(3)}).take(np.array([True, False, True])),
            TypeError,
            "must be an integer",
        ),
        (lambda: NoEnd(seed=1)[3:], TypeError, "has no end"),
        (lambda: NoEnd(seed=1)[-3:8], TypeError, "has no end"),
        (lambda: NoEnd(seed=1)[::-1], TypeError, "has no end"),
    ],
)
def test_what_has_no_meaning(make: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        make()
