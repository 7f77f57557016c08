"""Ordinary mistakes: what is said, when, and what to write instead."""

from __future__ import annotations

import threading
from collections import UserDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from workers import NotPicklableError, Sequence, SequenceArray, SequenceMap, prefetch
from workers.batch.stacking import join, stack


class Items:
    def __init__(self, item: Callable[[int], Any] = lambda index: index) -> None:
        self.item = item

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        return self.item(index)


class Lazy(Mapping[str, Any]):
    """Loads what it is asked for."""

    def __init__(self, *keys: Any) -> None:
        self.keys_, self.loaded = keys, 0

    def __len__(self) -> int:
        return len(self.keys_)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.keys_)

    def __getitem__(self, key: Any) -> Any:
        self.loaded += 1
        return key

    def __contains__(self, key: object) -> bool:
        return key in self.keys_


class ByPlace(dict[str, Any]):
    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__("ab"[index])


class Filling(dict[Any, Any]):
    def __missing__(self, index: int) -> int:
        return index


class NoGetitem(Sequence):
    def __len__(self) -> int:
        return 3


class NoLen(Sequence):
    def __getitem__(self, index: int) -> int:
        return index


class GetitemAlone:
    def __getitem__(self, index: int) -> int:
        return index


class LenAlone:
    def __len__(self) -> int:
        return 3


# -- sources

WAYS: dict[str, Callable[[Any], Any]] = {
    "prefetch": lambda source: prefetch(source, 0),
    "workers": lambda source: prefetch(source, 2),
    "auto": prefetch,
    "samples": lambda source: prefetch(source, 0, batch_size=2),
    "shuffled": lambda source: prefetch(source, 0, shuffle=True),
    "shuffled samples": lambda source: prefetch(source, "auto", batch_size=2, shuffle=True),
    "SequenceMap": lambda source: SequenceMap(source, 0),
    "a function": lambda source: SequenceMap(source, 2, str),
}
NO_SOURCES: list[tuple[Any, type[Exception], str]] = [
    (Items, TypeError, r"Items is a class: give an instance of it, Items\(\.\.\.\)"),
    (NoGetitem, TypeError, r"NoGetitem is a class: give an instance of it, NoGetitem\(\.\.\.\)"),
    (stack, TypeError, r"stack is a function: give what it returns, stack\(\.\.\.\)"),
    (None, TypeError, r"None \(NoneType\) has neither"),
    (GetitemAlone(), TypeError, "has __getitem__ but no __len__: define __len__"),
    (LenAlone(), TypeError, "has __len__ but no __getitem__: define __getitem__"),
    ("train.csv", TypeError, r"is 'train.csv' \(str\), whose items are single characters: give a list of strings"),
    (b"train", TypeError, r"is b'train' \(bytes\), whose items"),
    (np.array(3), TypeError, r"is a single value, array\(3\), and has no items"),
    ({"x": np.zeros(3)}, TypeError, r"is a mapping \(dict\), whose items are found by key.* give SequenceArray"),
    (defaultdict(list, a=[1]), TypeError, r"is a mapping \(defaultdict\)"),
    (UserDict(a=1), TypeError, r"is a mapping \(UserDict\)"),
    (Lazy("a", "b"), TypeError, r"is a mapping \(Lazy\)"),
    (NoGetitem(), NotImplementedError, r"NoGetitem must define __getitem__\(self, index\)"),
    (NoLen(), NotImplementedError, r"NoLen must define __len__\(self\)"),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("source", "error", "text"), NO_SOURCES, ids=[text for *_, text in NO_SOURCES])
def test_what_is_no_source_is_refused_at_once(way: str, source: Any, error: type[Exception], text: str) -> None:
    name = "source_split" if way in ("SequenceMap", "a function") else "sequence"
    with pytest.raises(error, match=text) as raised:
        WAYS[way](source)
    assert error is NotImplementedError or str(raised.value).startswith(f"{name} ")
    assert not getattr(source, "loaded", 0)


@pytest.mark.parametrize(
    ("source", "items"),
    [
        ({0: "a", 1: "b"}, ["a", "b"]),
        (UserDict({0: "a", 1: "b"}), ["a", "b"]),
        (Lazy(0, 1, 2), [0, 1, 2]),
        (ByPlace(a=1, b=2), [1, 2]),
        (Filling(a=1), [0]),
        ({}, []),
        (["ab", "c"], ["ab", "c"]),
        (np.array([[1, 2]]), [np.array([1, 2])]),
        (range(3), [0, 1, 2]),
        (iter("ab"), ["a", "b"]),
    ],
)
def test_what_has_items_by_index_or_in_order_is_a_source(source: Any, items: list[Any]) -> None:
    with prefetch(source, 0) as batches:
        assert repr(list(batches)) == repr(items)


@pytest.mark.parametrize("word", ["shuffle", "batch", "map"])
def test_a_sequence_without_items_is_refused_by_each_word(word: str) -> None:
    arguments: Any = {"shuffle": (), "batch": (2,), "map": (str,)}[word]
    with pytest.raises(NotImplementedError, match="NoGetitem must define __getitem__"):
        getattr(NoGetitem(), word)(*arguments)


# -- names of arguments

NAMES: list[tuple[Callable[..., Any], str, str]] = [
    *[
        (prefetch, name, f"prefetch() has no argument {name!r}: write {here}=...")
        for name, here in {
            "num_workers": "nb_workers",
            "workers": "nb_workers",
            "n_jobs": "nb_workers",
            "nworkers": "nb_workers",
            "prefetch_factor": "max_queue_size",
            "max_queue": "max_queue_size",
            "timeout": "job_timeout",
            "generator": "seed",
            "multiprocessing_context": "executor",
            "use_multiprocessing": "executor",
            "collate": "collate_fn",
            "drop_remainder": "drop_last",
            "batchsize": "batch_size",
            "worker_init": "worker_init_fn",
        }.items()
    ],
    (SequenceArray({"x": [1, 2]}).shuffle, "sampler", "write .reorder(sampler) before it"),
    (SequenceArray({"x": [1, 2]}).batch, "batch_sampler", "write .batch_by(batch_sampler) before it"),
    (SequenceArray({"x": [1, 2]}).batch, "weights", "write .weighted(weights) before it"),
    (prefetch, "pin_memory", ".to_device(device)"),
    (prefetch, "persistent_workers", "leave it out"),
    (prefetch, "transform", ".map(function)"),
    (prefetch, "epochs", "each loop over the result is one epoch"),
    (prefetch, "zzz", "it takes sequence, nb_workers, "),
    (SequenceMap, "num_workers", "SequenceMap() has no argument 'num_workers': write nb_workers=..."),
    (SequenceMap, "batch_size", "write .batch(batch_size)"),
    (SequenceArray, "dataset", "write arrays=..."),
    (SequenceArray({"x": [1, 2]}).map, "num_workers", "write nb_workers=..."),
    (SequenceArray({"x": [1, 2]}).map, "fn", "write function_to_run=..."),
    (SequenceArray({"x": [1, 2]}).prefetch, "num_workers", "write nb_workers=..."),
    (SequenceArray({"x": [1, 2]}).batch, "drop_last", "batch() has no argument 'drop_last': write discard_batch_not"),
    (SequenceArray({"x": [1, 2]}).sub_batch, "collate_fn", "write .collate(function) after it"),
    (SequenceArray({"x": [1, 2]}).rebatch, "drop_remainder", "write discard_batch_not_full=..."),
    (SequenceArray({"x": [1, 2]}).shuffle, "seed", "drawn from the seed of the sequence"),
    (SequenceArray({"x": [1, 2]}).shuffle, "buffer_size", "leave it out"),
    (SequenceArray({"x": [1, 2]}).shard, "num_replicas", "write world=..."),
    (SequenceArray({"x": [1, 2]}).shard, "index", "write rank=..."),
]


@pytest.mark.parametrize(("call", "name", "text"), NAMES, ids=[f"{name} {text}" for _, name, text in NAMES])
def test_names_of_other_libraries(call: Callable[..., Any], name: str, text: str) -> None:
    given: tuple[Any, ...] = ([1, 2],) if call is prefetch else ()
    with pytest.raises(TypeError) as raised:
        call(*given, **{name: 2})
    assert text in str(raised.value)


# -- samples of a batch

UNLIKE: list[tuple[list[Any], type[Exception], str]] = [
    ([np.zeros(3), np.zeros(4)], ValueError, "samples['k'] are of different shapes, (3,) and (4,): "),
    ([np.zeros(3), np.zeros((3, 1))], ValueError, "samples['k'] are of different shapes, (3,) and (3, 1): "),
    ([np.ma.zeros(3), np.ma.zeros(4)], ValueError, "samples['k'] are of different shapes, (3,) and (4,): "),
    ([3, [1, 2]], ValueError, "samples['k'] are of different shapes, () and (2,): "),
    ([(np.zeros(3),), (np.zeros(4),)], ValueError, "samples['k'][0] are of different shapes, (3,) and (4,): "),
    ([[1], [1, 2]], ValueError, "samples['k'] must be equally long, not 1 and 2 items (such as [1] and [1, 2]): "),
    ([[1, 2], []], ValueError, "samples['k'] must be equally long, not 2 and 0 items"),
    ([("a",), ("a", "b")], ValueError, "samples['k'] must be equally long, not 1 and 2 items"),
    ([deque([1]), [1, 2]], ValueError, "samples['k'] must be equally long, not 1 and 2 items"),
    ([None, np.zeros(3)], ValueError, "samples['k'] are partly None and partly arrays of shape (3,): "),
    ([np.zeros(3), None], ValueError, "samples['k'] are partly None and partly arrays of shape (3,): "),
    ([None, {"a": 1}], TypeError, "samples['k'] must be of one kind, not None and {'a': 1}"),
    ([{"a": 1}, None], TypeError, "samples['k'] must be of one kind, not {'a': 1} and None"),
    ([None, (1, 2)], TypeError, "samples['k'] must be of one kind, not None and (1, 2)"),
    ([(1, 2), None], TypeError, "samples['k'] must be of one kind, not (1, 2) and None"),
    ([[1, 2], 3], TypeError, "samples['k'] must be of one kind, not [1, 2] and 3"),
    ([(1, 2), {1, 2}], TypeError, "samples['k'] must be of one kind, not (1, 2) and {1, 2}"),
    (["a", 3], TypeError, "samples['k'] must be of one kind, not 'a' and 3"),
    ([None, "a", 3], TypeError, "samples['k'] must be of one kind, not None and 3"),
    (["a", np.zeros(2)], TypeError, "samples['k'] must be of one kind, not 'a' and array([0., 0.])"),
    ([{"a": 1}, {"b": 1}], ValueError, "samples['k'] must all have the same names, not ['a'] and ['b']"),
]


@pytest.mark.parametrize(("samples", "error", "text"), UNLIKE, ids=[text for *_, text in UNLIKE])
def test_samples_that_make_no_batch(samples: list[Any], error: type[Exception], text: str) -> None:
    """The key, both shapes, and what to write instead."""
    with pytest.raises(error) as raised:
        stack([{"k": sample} for sample in samples])
    assert text in str(raised.value)
    assert "collate_fn=..." in str(raised.value)


@pytest.mark.parametrize("nb_workers", [0, 1, "auto"])
def test_samples_that_make_no_batch_in_a_loop(nb_workers: Any) -> None:
    data = Items(lambda index: {"k": np.zeros(3 + index // 2)})
    text = r"samples\['k'\] are of different shapes, \(3,\) and \(4,\).*collate_fn=\.\.\."
    for make in (lambda: prefetch(data, nb_workers, batch_size=4), lambda: prefetch(data, 0).batch(4).prefetch(0)):
        with make() as batches, pytest.raises(ValueError, match=text):
            list(batches)
    with prefetch(iter([data[0], data[2]]), nb_workers, batch_size=2) as batches, pytest.raises(ValueError, match=text):
        list(batches)


@pytest.mark.parametrize(
    ("samples", "batch"),
    [
        ([None, 3], np.array([None, 3], object)),
        ([3, None], np.array([3, None], object)),
        ([None, None], [None, None]),
        ([None, "a"], [None, "a"]),
        (["a", b"a", None], ["a", b"a", None]),
        (["a", np.str_("b")], ["a", np.str_("b")]),
        ([(1, 2), [3, 4]], (np.array([1, 3]), np.array([2, 4]))),
        ([(1, 2), range(2)], (np.array([1, 0]), np.array([2, 1]))),
        ([(1, 2), np.array([3, 4])], (np.array([1, 3]), np.array([2, 4]))),
    ],
)
def test_samples_of_several_types_that_make_one(samples: list[Any], batch: Any) -> None:
    """Whichever is the first."""
    assert repr(stack(samples)) == repr(batch)


def test_batches_that_cannot_be_joined() -> None:
    with pytest.raises(ValueError, match=r"joined\['x'\] must be .* not \(2, 3\) and \(1, 4\)"):
        join([{"x": np.zeros((2, 3))}, {"x": np.zeros((1, 4))}])
    with pytest.raises(ValueError, match="batches to be joined must be equally long, not 1 and 2 items"):
        join([(np.zeros(2),), (np.zeros(2), np.zeros(2))])
    for other, kind in (("bc", "str"), (np.arange(2), "ndarray"), ({"b": 1}, "dict")):
        with pytest.raises(TypeError, match=f"joined, at \\['x'\\], must be of one kind, not a list and a {kind}"):
            join([{"x": ["a"]}, {"x": other}])


# -- what cannot be sent


class Holder(Items):
    def __init__(self, held: Any) -> None:
        super().__init__(len)
        self.held = held

    def __call__(self, batch: Any) -> Any:
        return batch


class HolderSequence(Sequence):
    def __init__(self, held: Any) -> None:
        self.held = held

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> int:
        return index


class LeavesOut(Holder):
    """What it leaves out is not to blame."""

    def __init__(self, left_out: Any, held: Any) -> None:
        self.left_out = left_out
        super().__init__(held)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "left_out": None}


class InSlots:
    __slots__ = ("__dict__", "first", "held")

    def __init__(self, first: Any, held: Any) -> None:
        self.first, self.held = first, held
        self.other = 7


LOCK = threading.Lock()
UNSENDABLE: list[tuple[Callable[[], Any], str, str]] = [
    (lambda: prefetch(Holder(LOCK), 1), "source.held", "Holder"),
    (lambda: prefetch(Holder([0, {"a": LOCK}]), 1, batch_size=2), "source.held[1]['a']", "Holder"),
    (lambda: prefetch(Holder(LOCK), 1, batch_size=2, shuffle=True), "source.held", "Holder"),
    (lambda: prefetch(Holder(Holder(LOCK)), 1, batch_size=2), "source.held.held", "Holder"),
    (lambda: prefetch([Holder(LOCK)], 1, batch_size=2), "source[0].held", "Holder"),
    (lambda: prefetch(LeavesOut(LOCK, LOCK), 1), "source.held", "LeavesOut"),
    (lambda: prefetch(Holder(LeavesOut(LOCK, [LOCK])), 1), "source.held.held[0]", "Holder"),
    (lambda: prefetch(Holder(InSlots(7, LOCK)), 1), "source.held.held cannot be sent", "Holder"),
    (lambda: HolderSequence(LOCK).shuffle().batch(2).prefetch(1), "source.held", "HolderSequence"),
    (lambda: prefetch([1, 2], 1, batch_size=2, collate_fn=Holder(LOCK)), "source.collate_fn.held", "Holder"),
    (lambda: prefetch([1, 2], 0).map(Holder(LOCK), 1), "functions[0].held", "Holder"),
    (lambda: prefetch([1, 2], 0).map(Holder(LOCK)).batch(2).prefetch(1), "source.function_to_run.held", "Holder"),
    (lambda: prefetch(iter([1, 2]), 0).map(Holder(LOCK)).batch(2).prefetch(1), "functions[0].functions[0]", "Holder"),
]


@pytest.mark.parametrize(("make", "path", "owner"), UNSENDABLE)
def test_what_cannot_be_sent_is_named_as_the_user_has_it(make: Callable[[], Any], path: str, owner: str) -> None:
    """However many words are between it and the workers."""
    with pytest.raises(NotPicklableError) as raised:
        make()
    text = str(raised.value)
    assert text.startswith(f"the sequence.{path}")
    assert f"in {owner}, def __getstate__(self): return {{**self.__dict__, 'held': None}}" in text
    assert "source_split" not in text


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (
            lambda: prefetch([1, LOCK], 1, batch_size=2),
            "make it where it is used, or hold it in an object of a class with",
        ),
        (lambda: _of_closure(threading.Lock()), r"Define the sequence\.source\.function_to_run in a module of its own"),
    ],
)
def test_what_is_in_no_attribute_cannot_be_left_out(make: Callable[[], Any], advice: str) -> None:
    with pytest.raises(NotPicklableError, match=advice):
        make()


def _of_closure(lock: Any) -> Any:
    return prefetch([1, 2], 0).map(lambda item: (item, lock)).batch(2).prefetch(1)


def test_the_seed_of_what_was_made() -> None:
    with pytest.raises(AttributeError, match="what it was made from: set that of the HolderSequence"):
        HolderSequence(1).shuffle().batch(2).prefetch(0).seed = 3
    with pytest.raises(AttributeError, match=r"what it was made from: give seed=\.\.\. there"):
        prefetch([1, 2], 0, batch_size=2).seed = 3
