"""Functions and augmenters may write into what they are given: the data stays as it is, in each epoch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from any_workers import WORKERS, Several, epochs_on

import workers
from sampler import ContrastiveAugmenter, MultiShotMemorySampler, SingleShotMemorySampler
from workers import SequenceArray, prefetch

LENGTH = 8
NUMBERS = np.arange(float(LENGTH))
REVERSED = np.arange(LENGTH)[::-1]


def ragged() -> Any:
    return [np.full(2 + at % 3, float(at)) for at in range(LENGTH)]


def as_objects(items: Any) -> Any:
    objects = np.empty(len(items), object)
    objects[:] = items
    return objects


# Data whose item ``i`` has the number ``i`` alone.
DATA: dict[str, Callable[[], Any]] = {
    "numbers": NUMBERS.copy,
    "rows": lambda: np.repeat(NUMBERS[:, None], 3, axis=1),
    "large rows": lambda: np.repeat(NUMBERS[:, None], 20_000, axis=1),  # read-only where a worker process has them
    "columns": lambda: np.asfortranarray(np.repeat(NUMBERS[:, None], 3, axis=1)),
    "ragged": ragged,
    "lists": lambda: [each.tolist() for each in ragged()],
    "objects": lambda: as_objects(ragged()),
    "masked": lambda: np.ma.MaskedArray(np.repeat(NUMBERS[:, None], 3, axis=1), mask=False),
}


def add_one(part: Any) -> None:
    """In place, wherever there is a place."""
    if isinstance(part, np.ndarray) and not part.dtype.hasobject:
        part += 1
    elif isinstance(part, (list, np.ndarray)):
        for at, item in enumerate(part):
            if isinstance(item, (list, np.ndarray)):
                add_one(item)
            else:
                part[at] = item + 1


def in_place(batch: Any) -> Any:
    add_one(batch["x"])
    return batch


def one_by_one(samples: list[Any]) -> Any:
    return {"x": [in_place(sample)["x"] for sample in samples]}


def augment(x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> Any:
    add_one(x)
    add_one(y)
    return np.array([np.ravel(each)[0] for each in x]), y


def process(example: Any) -> Any:
    add_one(example)
    return example[:1]


class Kept:
    """A ``load_example_fn`` that keeps what it has loaded."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def __call__(self, item: int) -> Any:
        return self.items[item]


def numbers_in(part: Any) -> set[float]:
    if isinstance(part, dict):
        return numbers_in(part["x"])
    if isinstance(part, np.ndarray) and not part.dtype.hasobject:
        return set(np.unique(part).tolist())
    if isinstance(part, (list, tuple, np.ndarray)):
        return set().union(*map(numbers_in, part))
    return {float(part)}


def arrays() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, make in DATA.items():
        found[f"batches of {name}"] = SequenceArray({"x": make()}).batch(2).map(in_place)
        found[f"{name} at positions"] = SequenceArray({"x": make()}, REVERSED).batch(2).map(in_place)
        found[f"shuffled {name}"] = SequenceArray({"x": make()}, seed=1).shuffle().batch(2).map(in_place)
        found[f"part of {name}"] = SequenceArray({"x": make()}, seed=1).subsample(LENGTH).batch(2).map(in_place)
    return found


def samples() -> dict[str, Any]:
    names = DATA.keys() - {"numbers"}  # one of them is no array
    return {name: SequenceArray({"x": DATA[name]()}).map(in_place) for name in names}


def samplers() -> dict[str, Any]:
    y = np.arange(LENGTH) % 2
    same = Kept([each[:1] for each in ragged()])
    x: dict[str, Any] = {name: (make(), None) for name, make in DATA.items() if name not in ("lists", "objects")}
    x |= {"loaded": (range(LENGTH), Kept(ragged())), "loaded, of one shape": (range(LENGTH), same)}
    found: dict[str, Any] = {}
    for name, (examples, load) in x.items():
        found[name] = SingleShotMemorySampler(examples, augment, 2, 4, load_example_fn=load, seed=1)
        found[f"classes of {name}"] = MultiShotMemorySampler(
            examples, y, 2, 1, 4, augmenter=augment, load_example_fn=load, seed=1
        )
        if name != "numbers":
            views = ContrastiveAugmenter(process, num_views=3)
            found[f"views of {name}"] = SingleShotMemorySampler(examples, views, 2, 4, load_example_fn=load, seed=1)
    return found


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
@pytest.mark.parametrize("make", [samples, lambda: arrays() | samplers()], ids=["samples", "batches"])
def test_the_data_stays_as_it_is(make: Any, nb_workers: Any, executor: str) -> None:
    """In each epoch each number comes once, and is one more than that of the data."""
    for epoch in epochs_on(Several(make()), nb_workers, executor, epochs=3):
        for name in epoch[0]:
            parts = [batch[name] if isinstance(batch[name], (dict, list)) else batch[name][0] for batch in epoch]
            assert set().union(*map(numbers_in, parts)) == set(range(1, LENGTH + 1)), name


class Samples:
    """A dataset that keeps its samples, as torch has it."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, item: int) -> Any:
        return self.items[item]


class Views(Samples):
    """Its samples are made anew, of memory that it keeps."""

    def __init__(self, items: list[Any]) -> None:
        super().__init__(items)
        self.array = np.stack([item["x"] for item in items])

    def __getitem__(self, item: int) -> Any:
        return {"x": self.array[item]}


class Iterable:
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __iter__(self) -> Any:
        return iter(self.items)


def kept(name: str) -> list[Any]:
    return [{"x": item} for item in DATA[name]()]


def tensors() -> list[Any]:
    torch = pytest.importorskip("torch")
    return [{"x": torch.full((3,), float(at))} for at in range(LENGTH)]


def parameters() -> list[Any]:
    torch = pytest.importorskip("torch")
    return [{"x": torch.nn.Parameter(sample["x"])} for sample in tensors()]


def in_place_of_tensors(sample: Any) -> Any:
    sample["x"].data.add_(1)
    return {"x": sample["x"].detach().numpy()}


def first_of_lists(sample: Any) -> Any:
    """Of what an earlier function keeps."""
    return KEPT[int(np.ravel(sample["x"])[0])]


KEPT = [{"x": np.full(3, float(at))} for at in range(LENGTH)]

#: {name: (what makes a source, whose sample ``i`` has the number ``i``, the functions)}
SOURCES: dict[str, tuple[Callable[[], Any], list[Callable[[Any], Any]]]] = {
    "list": (lambda: kept("rows"), [in_place]),
    "list of large arrays": (lambda: kept("large rows"), [in_place]),
    "list of lists": (lambda: [{"x": [float(at)] * 3} for at in range(LENGTH)], [in_place]),
    "list of objects": (lambda: [{"x": as_objects([np.full(3, float(at))])} for at in range(LENGTH)], [in_place]),
    "list of masked arrays": (lambda: kept("masked"), [in_place]),
    "list of tensors": (tensors, [in_place_of_tensors]),
    "list of parameters": (parameters, [in_place_of_tensors]),
    "dataset": (lambda: Samples(kept("rows")), [in_place]),
    "views": (lambda: Views(kept("rows")), [in_place]),
    "views of large arrays": (lambda: Views(kept("large rows")), [in_place]),
    "behind another function": (lambda: kept("rows"), [first_of_lists, in_place]),
}


def mapped(source: Any, functions: list[Callable[[Any], Any]], nb_workers: int = 0, executor: str = "process") -> Any:
    batches = prefetch(source, nb_workers, executor=executor, seed=0)
    for function in functions:
        batches = batches.map(function)
    return batches


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_what_the_user_holds_stays_as_it_is(batch_size: int, nb_workers: Any, executor: str) -> None:
    sources = {name: make() for name, (make, _) in SOURCES.items()}
    sequences = {name: mapped(source, SOURCES[name][1]) for name, source in sources.items()}
    if batch_size > 1:
        sequences = {name: sequence.batch(batch_size) for name, sequence in sequences.items()}
    for epoch in epochs_on(Several(sequences), nb_workers, executor, epochs=3):
        for name in sequences:
            found = set().union(*[numbers_in(batch[name]) for batch in epoch])
            assert found == set(range(1, LENGTH + 1)), name
    for name, (make, _) in SOURCES.items():
        assert str(items_of(sources[name])) == str(items_of(make())), name


def items_of(source: Any) -> Any:
    return getattr(source, "items", source)


@pytest.mark.parametrize(("nb_workers", "executor"), [(0, "process"), (1, "process"), (2, "thread")])
def test_what_an_iterable_holds_stays_as_it_is(nb_workers: int, executor: str) -> None:
    source = Iterable(kept("rows"))
    with mapped(source, [in_place], nb_workers, executor) as batches:
        for _ in range(2):
            assert [numbers_in(batch) for batch in batches] == [{number + 1} for number in range(LENGTH)]
    assert str(source.items) == str(kept("rows"))


@pytest.mark.parametrize("nb_workers", [0, 2])
@pytest.mark.parametrize("make", [lambda: kept("rows"), lambda: Iterable(kept("rows"))], ids=["list", "iterable"])
def test_a_collate_fn_may_write_into_what_the_user_holds(make: Any, nb_workers: int) -> None:
    with prefetch(make(), nb_workers, batch_size=2, collate_fn=one_by_one) as batches:
        for _ in range(2):
            assert [numbers_in(batch) for batch in batches] == [{1, 2}, {3, 4}, {5, 6}, {7, 8}]


@pytest.mark.parametrize("executor", ["process", "thread"])
def test_a_function_that_is_run_again_has_what_it_had_before(executor: str, tmp_path: Path) -> None:
    """It has written into it before it raised."""
    source = Iterable(kept("rows"))
    function = functools.partial(raises_once, tmp_path)
    with prefetch(source, 1, executor=executor, on_error=lambda error: "retry", max_retries=1).map(function) as loop:
        assert [numbers_in(batch) for batch in loop] == [{number + 1} for number in range(LENGTH)]


def raises_once(folder: Path, sample: Any) -> Any:
    in_place(sample)
    flag = folder / str(int(sample["x"][0]))
    if not flag.exists():
        flag.touch()
        raise OSError("for a moment")
    return sample


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_a_loop_may_write_into_batches(nb_workers: Any, executor: str) -> None:
    sequences = {name: SequenceArray({"x": make()}).batch(2) for name, make in DATA.items()}
    for batch in epochs_on(Several(sequences), nb_workers, executor)[0]:
        for part in batch.values():
            in_place(part)
    assert all(numbers_in(sequence.source_split.arrays) == set(range(LENGTH)) for sequence in sequences.values())


def test_what_collates_may_write_into_samples() -> None:
    for name in DATA.keys() - {"numbers"}:
        with prefetch(SequenceArray({"x": DATA[name]()}), 0, batch_size=2, collate_fn=one_by_one) as batches:
            for _ in range(2):
                assert [numbers_in(batch) for batch in batches] == [{1, 2}, {3, 4}, {5, 6}, {7, 8}]


def refuse_copies(worker: int) -> None:
    """In a worker: an error for each large array that is copied into the memory that the loop reads."""
    from workers.batch import slot_writer

    copy = slot_writer.copy_into

    def refuse(target: Any, array: Any) -> None:
        assert array.nbytes < 100_000, "copied"
        copy(target, array)

    slot_writer.copy_into = refuse


def picture(index: int) -> Any:
    return {"x": np.full((40, 50, 3), index, np.uint8)[:, ::-1], "y": index}


def as_it_is(batch: Any) -> Any:
    return batch


@pytest.mark.parametrize(
    ("make", "is_copied"),
    [
        (lambda seq: seq.batch(32), False),
        (lambda seq: seq.batch(32).shuffle(), False),
        (lambda seq: seq.map(as_it_is).batch(32), False),
        (lambda seq: seq.batch_by([list(range(32))]), False),
        (lambda seq: workers.mix([seq.batch(32), seq.batch(32)]), False),
        (lambda seq: seq.batch(32).map(as_it_is), True),
        (lambda seq: seq.batch(32).cache(), True),
    ],
)
def test_samples_are_stacked_where_the_loop_reads_them(make: Any, is_copied: bool) -> None:
    seq = workers.prefetch(list(range(64)), 0, seed=1, worker_init_fn=refuse_copies).map(picture, as_items=False)
    with make(seq).prefetch(1, worker_init_fn=refuse_copies) as batches:
        if is_copied:
            with pytest.raises(AssertionError, match="copied"):
                list(batches)
        else:
            for batch in batches:
                assert (batch["x"][:, 0, 0, 0] == batch["y"]).all()
                assert batch["x"].flags.writeable


def test_samples_in_another_order_of_axes_keep_it() -> None:
    columns = [np.asfortranarray(np.full((30, 40), index, np.float32)) for index in range(64)]
    found = []
    for nb_workers in (0, 1):
        with workers.prefetch(columns, nb_workers, batch_size=32, seed=1) as batches:
            found.append([(batch.strides, batch.tobytes()) for batch in batches])
    assert found[0] == found[1]
