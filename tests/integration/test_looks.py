"""What objects say of themselves: in a line, as a table, and what completion offers of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from sampler import Augmenter, ContrastiveAugmenter, MultiShotMemorySampler, Sampler, SingleShotMemorySampler
from workers import Metadata, ResumeSequence, Sequence, SequenceArray, SequenceMap, prefetch


class Told(Sequence):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return np.full(3, index)


class NeverAsked(Sequence):
    """Nothing of it may be asked for but its length."""

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: int) -> Any:
        raise AssertionError


class NoLength(Sequence):
    def __len__(self) -> int:
        raise LookupError

    def __getitem__(self, index: int) -> Any:
        raise AssertionError


class HalfMade(Sequence):
    def __init__(self) -> None:
        self.early = repr(self)
        self._shown_facts = self._own_facts = self._clock_of = "names of the user's"  # type: ignore[assignment]

    def __len__(self) -> int:
        return self.missing  # type: ignore[attr-defined,no-any-return]


class Bold(Augmenter):
    def __init__(self, scale: float) -> None:
        self.scale, self.name, self.table, self.function = scale, "<b>", np.zeros(1_000_000), len

    def augment(self, x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> Any:
        raise AssertionError


def never(*arguments: Any) -> Any:
    raise AssertionError


def a_sampler() -> MultiShotMemorySampler:
    paths = [f"{number}.png" for number in range(1000)]
    return MultiShotMemorySampler(
        paths, np.arange(1000) % 10, 4, examples_per_class_per_batch=2, steps_per_epoch=200, load_example_fn=never
    )


def samples(sampler: Any = None) -> SequenceArray:
    return SequenceArray({"x": np.arange(1000), "uid": np.arange(1000)}, sampler)


SAID = [
    (Told, "<Told: 8 batches, epoch 0>"),
    (NeverAsked, "<NeverAsked: 1,000,000 batches, epoch 0>"),
    (NoLength, "<NoLength: epoch 0>"),
    (HalfMade, "<HalfMade>"),
    (lambda: HalfMade().early, "<HalfMade: epoch 0>"),
    (lambda: Told.__new__(Told), "<Told: 8 batches, epoch 0>"),
    (lambda: SequenceMap.__new__(SequenceMap), "<SequenceMap>"),
    (lambda: MultiShotMemorySampler.__new__(MultiShotMemorySampler), "<MultiShotMemorySampler>"),
    (a_sampler, "<MultiShotMemorySampler: 200 batches, 1,000 examples, 4 x 2 a batch, epoch 0>"),
    (
        lambda: SingleShotMemorySampler(np.eye(9), None, 1, 1),
        "<SingleShotMemorySampler: 1 batch, 9 examples, 1 x 1 a batch, epoch 0>",
    ),
    (samples, "<SequenceArray: 1,000 samples, of ['x', 'uid'], epoch 0>"),
    (lambda: samples(never), "<SequenceArray: of ['x', 'uid'], epoch 0>"),
    (lambda: samples(never).batch(10), "<SequenceBatch of SequenceArray: epoch 0>"),
    (lambda: samples().batch(10), "<SequenceBatch of SequenceArray: 100 batches, epoch 0>"),
    (lambda: samples().shuffle(), "<SequenceShuffle of SequenceArray: 1,000 samples, epoch 0>"),
    (lambda: Told().shard(0, 4), "<SequenceShard of Told: 2 batches, epoch 0>"),
    (lambda: samples().map(never), "<SequenceMap of SequenceArray: 1,000 samples, epoch 0, 0 workers>"),
    (lambda: prefetch([1, 2], nb_workers=0), "<SequenceMap of list: 2 batches, epoch 0, 0 workers>"),
    (lambda: SequenceMap(iter([1]), 0), "<SequenceMap of list_iterator: epoch 0, 0 workers>"),
    (lambda: Bold(0.5), "<Bold: scale 0.5, name '<b>', table ndarray, function len>"),
    (lambda: ContrastiveAugmenter(never), "<ContrastiveAugmenter: process never, num_views 2>"),
    (lambda: Bold.__new__(Bold), "<Bold>"),
    (Metadata, "<Metadata: 0 batches, waited 0 s, in jobs 0 s>"),
]


@pytest.mark.parametrize(("make", "said"), SAID, ids=[said for _, said in SAID])
def test_what_is_said(make: Any, said: str) -> None:
    of = make()
    assert (of if isinstance(of, str) else repr(of)) == said


def test_where_it_stands() -> None:
    with a_sampler_that_loads().prefetch(nb_workers=2) as batches:
        name = "SequenceMap of SingleShotMemorySampler: 4 batches"
        assert repr(batches) == f"<{name}, epoch 0, 2 workers>"
        loop = iter(batches)
        next(loop), next(loop), next(loop)
        assert repr(batches) == f"<{name}, epoch 0, batch 3, 2 workers>"
        list(loop)
        assert repr(batches) == f"<{name}, epoch 1, 2 workers>"
        assert repr(batches.metadata).startswith("<Metadata: 4 batches, waited ")
        with batches.map(len, nb_workers=1) as made:
            assert repr(batches) == f"<{name}, epoch 1, 2 workers, not running>"
            assert repr(made) == f"<SequenceMap of {name}, epoch 1, 3 workers>"
        assert repr(made) == f"<SequenceMap of {name}, epoch 1, closed>"
    assert repr(batches) == f"<{name}, epoch 1, closed>"
    with Told().prefetch(nb_workers=1, executor="thread", in_order=False) as threads:
        loop = iter(threads)
        next(loop), next(loop)
        assert repr(threads) == "<SequenceMap of Told: 8 batches, epoch 0, batch 2, 1 thread>"
    half = Told().shard(1, 2)
    next(iter(half))
    assert repr(half) == "<SequenceShard of Told: 4 batches, epoch 0, batch 1>"


def a_sampler_that_loads() -> SingleShotMemorySampler:
    return SingleShotMemorySampler(np.eye(9), None, 2, 4)


def test_nothing_is_begun_by_looking() -> None:
    """No process, no thread; no seed is drawn, and no order."""
    asked: list[int] = []

    def order(number: int) -> Any:
        asked.append(number)
        return np.arange(number - 1)

    sequence = samples(order)
    made = Told()
    before = psutil.Process().num_threads(), psutil.Process().children(recursive=True)
    for each in (sequence, sequence.shuffle(), made, Told().map(never)):
        repr(each)
        each._repr_html_()
        dir(each)
    assert (psutil.Process().num_threads(), psutil.Process().children(recursive=True)) == before
    assert "_sequence_seed" not in vars(made)
    assert not asked
    sequence[0]
    assert repr(sequence) == "<SequenceArray: 999 samples, of ['x', 'uid'], epoch 0>"  # now it is known


def test_a_million_examples_are_not_looked_at() -> None:
    class Paths:
        def __len__(self) -> int:
            return 1_000_000

        __getitem__ = __iter__ = __repr__ = never

    sampler = SingleShotMemorySampler(Paths(), None, 4, load_example_fn=never)
    said = "<SingleShotMemorySampler: 1,000 batches, 1,000,000 examples, 4 x 1 a batch, epoch 0>"
    assert repr(sampler) == said
    assert repr(prefetch(Paths(), nb_workers=0)) == "<SequenceMap of Paths: 1,000,000 batches, epoch 0, 0 workers>"


class HasRepr:
    def __repr__(self) -> str:
        return "a mixin's"


class Mixed(Told, HasRepr):
    pass


class Own(Told):
    def __repr__(self) -> str:
        return f"own, {super().__repr__()}"


class OwnAugmenter(Bold, HasRepr):
    pass


@pytest.mark.parametrize(
    ("make", "said"),
    [(Mixed, "a mixin's"), (Own, "own, <Own: 8 batches, epoch 0>"), (lambda: OwnAugmenter(1), "a mixin's")],
)
def test_the_user_has_the_last_word(make: Any, said: str) -> None:
    assert repr(make()) == str(make()) == said
    assert make()._repr_html_() is None


def test_a_table() -> None:
    assert Told()._repr_html_() == (
        '<table><thead><tr><th colspan="2">Told</th></tr></thead><tbody>'
        "<tr><td>batches</td><td>8</td></tr><tr><td>epoch</td><td>0</td></tr></tbody></table>"
    )
    table = Bold(1)._repr_html_()
    assert table is not None
    assert "&lt;b&gt;" in table
    assert "<b>" not in table
    tags = r"</?(table|thead|tbody|tr|td|th)( colspan=\"2\")?>"
    for make, _ in SAID:
        of = make()
        if not isinstance(of, str):
            assert not re.search("[<>]", re.sub(tags, "", of._repr_html_()))


FOR_KERAS = {"max_queue_size", "num_batches", "use_multiprocessing", "workers"}
FOR_TRW = {"fill_queue", "has_background_jobs", "initializer", "next_item", "queue_timeout"}


def test_what_completion_offers() -> None:
    import keras

    told, front = Told(), prefetch(Told(), nb_workers=0)
    assert isinstance(told, keras.utils.PyDataset)
    assert not set(dir(told)) & (FOR_KERAS | FOR_TRW)
    assert not set(dir(front)) & ((FOR_KERAS | FOR_TRW) - {"max_queue_size"})
    assert {"batch", "close", "epoch", "map", "metadata", "max_queue_size", "nb_workers", "seed"} <= set(dir(front))
    for name in FOR_KERAS | FOR_TRW:
        assert hasattr(front, name)
    assert front.next_item(blocking=True) is not None
    assert told.num_batches == 8


class Busy(Told):
    workers = 3

    def __init__(self) -> None:
        super().__init__()
        self.next_item = "the user's own"

    def initializer(self) -> None:
        """The user's own."""


def test_names_of_the_user_are_offered() -> None:
    assert {"workers", "next_item", "initializer"} <= set(dir(Busy()))
    assert "num_batches" not in dir(Busy())


def test_resume_sequence(tmp_path: Path) -> None:
    assert repr(ResumeSequence(Told(), tmp_path / "a.json")) == f"<ResumeSequence of Told: {tmp_path}/a.json>"


def test_tfrecord_sequence(tmp_path: Path) -> None:
    import shards

    from sampler import TFRecordSequence

    folder = shards.write(tmp_path / "shards", [5, 5], 2)
    with TFRecordSequence(folder, shards.parse, 2, 4) as sequence:
        assert repr(sequence) == "<TFRecordSequence: 5 batches, epoch 0>"
    assert repr(sequence) == "<TFRecordSequence: 5 batches, epoch 0, closed>"


def test_a_sampler_of_the_users() -> None:
    class Own(Sampler):
        def get_examples(self, batch_id: int, num_classes: int, example_per_class: int) -> Any:
            raise AssertionError

        @property
        def num_examples(self) -> int:
            raise LookupError

        @property
        def example_shape(self) -> Any:
            raise AssertionError

    assert repr(Own(3, steps_per_epoch=5)) == "<Own: 5 batches, 3 x 2 a batch, epoch 0>"
