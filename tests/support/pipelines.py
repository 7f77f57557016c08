"""Pipelines of the public words: as the package makes them, and as the model does."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
from model import Pipeline, Raised, Reader, Word
from shapes import exactly

from sampler import MultiShotMemorySampler, SingleShotMemorySampler
from workers import Sequence, SequenceArray, current_rng, prefetch, share

# -- functions of an item: a dict, or (x, y) of a sampler, of samples or batches


def number_of(item: Any) -> int:
    return int(np.ravel(item["index"] if isinstance(item, dict) else item[1])[0])


def with_x(item: Any, change: Callable[[Any], Any]) -> Any:
    return {**item, "x": change(item["x"])} if isinstance(item, dict) else (change(item[0]), item[1])


def noisy(item: Any) -> Any:
    return with_x(item, lambda x: x + current_rng().random())


def noisy_by_numpy(item: Any) -> Any:
    return with_x(item, lambda x: x + np.random.random())


def copies(item: Any) -> Any:
    """None to two of it; of batches of three too."""
    number = number_of(item)
    return [noisy(item) for _ in range((number + number // 3) % 3)]


def spread(item: Any) -> Any:
    """None to two of it, by a generator function."""
    number = number_of(item)
    for _ in range((number + number // 3) % 3):
        yield noisy(item)


def spread_and_fail(item: Any) -> Any:
    yield noisy(item)
    if number_of(item) % 4 == 1:
        raise LookupError(f"item {number_of(item)}")
    yield noisy(item)


def two(item: Any) -> Any:
    """A list that is one batch, with as_items=False."""
    return [item, noisy(item)]


def is_kept(item: Any) -> bool:
    return number_of(item) % 3 != 1


def failing(item: Any) -> Any:
    if number_of(item) % 4 == 1:
        raise LookupError(f"item {number_of(item)}")
    return noisy(item)


# -- sources: what a user hands over, and what its jobs are


class Numbers(Sequence[Any]):
    """Samples that draw. Text and bytes, some of which end in zeros, have lengths of their own."""

    def __init__(self, length: int, seed: int | None) -> None:
        super().__init__(seed=seed)
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return {
            "index": index,
            "x": index + current_rng().random(2),
            "raw": bytes([index]) * 3 + b"\0" * (index % 3),
            "at": (self.epoch, f"text {index}"),
        }


class Hooked(Numbers):
    """What hooks change is seen by all jobs of an epoch."""

    def __init__(self, length: int, seed: int | None) -> None:
        super().__init__(length, seed)
        self.begun, self.drawn, self.scale = 0, 0, np.ones(2)

    def on_epoch_begin(self) -> None:
        self.begun += 1

    def on_epoch_end(self) -> None:
        self.scale *= 2
        self.drawn = int(current_rng().integers(1000))

    def __getitem__(self, index: int) -> Any:
        sample = super().__getitem__(index)
        return {**sample, "x": sample["x"] * self.scale, "seen": np.array([self.begun, self.drawn])}


class Shared(Numbers):
    """What hooks write into a shared array is seen by all jobs of the next epoch."""

    def __init__(self, length: int, seed: int | None) -> None:
        super().__init__(length, seed)
        self.scale = share(np.ones(10_000))

    def on_epoch_end(self) -> None:
        self.scale *= 2

    def __getitem__(self, index: int) -> Any:
        sample = super().__getitem__(index)
        return {**sample, "x": sample["x"] * self.scale[index]}


class Growing(Sequence[Any]):
    """Samples that nothing is drawn for. A hook changes them, so that a cache of them is emptied."""

    def __init__(self, length: int, seed: int | None) -> None:
        super().__init__(seed=seed)
        self.length, self.scale = length, 1.0

    def __len__(self) -> int:
        return self.length

    def on_epoch_end(self) -> None:
        self.scale *= 2

    def __getitem__(self, index: int) -> Any:
        return {"index": index, "x": np.full(2, index * self.scale), "raw": b"\0" * (index % 3)}


class Dataset:
    """As torch has it."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return {"index": index, "x": index + current_rng().random(2)}


class Streamed:
    """Has only __iter__."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __iter__(self) -> Iterator[Any]:
        for index in range(self.length):
            yield {"index": index, "x": np.full(2, index / 8), "raw": b"\0" * index}


def in_list(length: int) -> list[Any]:
    return [{"index": index, "x": np.full(2, index / 8), "raw": b"a\0" * index} for index in range(length)]


def augment(x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> Any:
    return x + current_rng().random(x.shape), y


def in_arrays(length: int) -> dict[str, Any]:
    return {"index": np.arange(length), "x": np.arange(2.0 * length).reshape(length, 2)}


def keras_dataset(length: int) -> Any:
    from keras_dataset import Batches

    return Batches(length)


#: {name: what makes it of (length, seed)}; those of other people have no seed.
SOURCES: dict[str, Callable[[int, int | None], Any]] = {
    "Sequence": Numbers,
    "hooks": Hooked,
    "shared": Shared,
    "growing": Growing,
    "SequenceArray": lambda length, seed: SequenceArray(in_arrays(length), seed=seed),
    "SingleShot": lambda length, seed: SingleShotMemorySampler(
        np.arange(2.0 * 9).reshape(9, 2), augment, 3, length, warmup=1, seed=seed
    ),
    "MultiShot": lambda length, seed: MultiShotMemorySampler(
        np.arange(2.0 * 12).reshape(12, 2), np.arange(12) // 3, 2, 2, length, augmenter=augment, seed=seed
    ),
    "list": lambda length, seed: in_list(length),
    "Dataset": lambda length, seed: Dataset(length),
    "iterable": lambda length, seed: Streamed(length),
    "PyDataset": lambda length, seed: keras_dataset(length),
}
WITH_SEED = "Sequence", "hooks", "shared", "growing", "SequenceArray", "SingleShot", "MultiShot"
WITH_HOOKS = "hooks", "shared", "growing"
DRAWS_NOTHING = "growing", "SequenceArray", "list", "iterable"


class Given:
    """The source for the model: its items by index, in the epoch of the job that asks."""

    def __init__(self, name: str, length: int, seed: int) -> None:
        self.source = SOURCES[name](length, seed)
        self.has_index = hasattr(self.source, "__getitem__")
        self.on_epoch_begin = getattr(self.source, "on_epoch_begin", lambda: None)
        self.on_epoch_end = getattr(self.source, "on_epoch_end", lambda: None)

    def items(self, epoch: int) -> list[Callable[[], list[Any]]]:
        if not self.has_index:
            return [lambda item=item: [item] for item in self.source]
        return [lambda index=index: [copy.deepcopy(self.source[index])] for index in range(len(self.source))]


# -- pipelines


class Spec(NamedTuple):
    """A pipeline, but for its workers: Spec("list", 7, [Word("shuffle"), Word("prefetch"), Word("batch", (3,))])."""

    source: str
    length: int
    words: list[Word]  # one of them is "prefetch"
    seed: int = 7
    is_seeded_at_the_end: bool = False

    def names(self) -> list[str]:
        return [word.name for word in self.words]


def made(spec: Spec, nb_workers: Any, **options: Any) -> Any:
    """The front-end that the package makes of it. ``options`` are of its prefetch, and the words'."""
    has_seed = spec.source in WITH_SEED
    seed = None if spec.is_seeded_at_the_end or not has_seed else spec.seed
    sequence = SOURCES[spec.source](spec.length, seed)
    if not has_seed and spec.names()[0] != "prefetch":
        sequence = prefetch(sequence, 0, seed=spec.seed)
    for name, arguments, given in spec.words:
        if name == "prefetch":
            all_options = {**given, **options}
            if (spec.is_seeded_at_the_end and has_seed) or not isinstance(sequence, Sequence):
                all_options["seed"] = spec.seed
            make = sequence.prefetch if isinstance(sequence, Sequence) else partial(prefetch, sequence)
            sequence = make(nb_workers, **all_options)
        else:
            sequence = getattr(sequence, name)(*arguments, **given)
    return sequence


@contextlib.contextmanager
def kept_server() -> Iterator[None]:
    """A pool that keeps the server of all workers, with all that these need imported: none of those within start it."""
    needed = Numbers(1, 0)
    needed.sources = [make(4, 0) for name, make in SOURCES.items() if name != "PyDataset"]  # type: ignore[attr-defined]
    with needed.map(noisy, 1) as pool:
        assert len(list(pool)) == 1
        yield


def modelled(spec: Spec) -> Pipeline:
    return Pipeline(
        Given(spec.source, spec.length, spec.seed), spec.words, spec.seed, partial(order, chain_of(spec)), choice
    )


def chain_of(spec: Spec) -> tuple[tuple[str, int], ...]:
    """What of the words says how many places a shuffle has."""
    found: list[tuple[str, int]] = []
    for name, arguments, options in spec.words:
        if name == "prefetch":
            found += [("shuffle", 0)] if options.get("shuffle") else []
            found += [("batch", options["batch_size"])] if options.get("batch_size") else []
        elif name in ("shuffle", "batch"):
            found.append((name, arguments[0] if arguments else 0))
    return tuple(found)


@cache
def order(chain: tuple[tuple[str, int], ...], seed: int, epoch: int, level: int, length: int) -> list[int]:
    """The order that the ``level``-th shuffle draws, as the package has it without workers: any permutation."""
    last = [at for at, (name, _) in enumerate(chain) if name == "shuffle"][level]
    before: Any = Places(length * math.prod(size for name, size in chain[:last] if name == "batch"), seed)
    for name, size in chain[:last]:
        before = before.shuffle() if name == "shuffle" else before.batch(size)
    shuffled = before.shuffle()
    before.epoch = shuffled.epoch = epoch
    at_place = {np.asarray(item).tobytes(): at for at, item in enumerate(before)}
    found = [at_place[np.asarray(item).tobytes()] for item in shuffled]
    assert sorted(found) == list(range(length)), f"no permutation: {found}"
    return found


@cache
def choice(seed: int, epoch: int, weights: tuple[float, ...], length: int) -> list[int]:
    """The samples that weights draw, as the package has it without workers."""
    drawn = Places(length, seed).weighted(weights)
    drawn.epoch = epoch
    found = list(drawn)
    shares = np.array(weights) / sum(weights) * length
    assert (np.abs(np.bincount(found, minlength=length) - shares) < 1).all(), f"not the shares: {found}"
    return found


class Places(Sequence[int]):
    """Sample i is i."""

    def __init__(self, length: int, seed: int) -> None:
        super().__init__(seed=seed)
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return index


# -- comparing


def told(outcome: Any) -> str:
    """All that can be told of a batch, every byte; of an error, what it is."""
    if isinstance(outcome, Raised):
        error = outcome.error
        return f"{type(error).__name__}: {error}" if isinstance(error, LookupError) else type(error).__name__
    return str(exactly(as_arrays(outcome)))


def as_arrays(batch: Any) -> Any:
    """With output="torch": tensors as arrays. No array of numbers may be left."""
    if hasattr(batch, "detach"):
        return batch.numpy()
    if isinstance(batch, dict):
        return {key: as_arrays(part) for key, part in batch.items()}
    return type(batch)(map(as_arrays, batch)) if isinstance(batch, (tuple, list)) else batch


def next_of(iterator: Any) -> Any:
    """The next batch, or its error. Raises StopIteration at the end."""
    try:
        return next(iterator)
    except StopIteration:
        raise
    except Exception as error:
        return Raised(error)


class Loop:
    """A front-end read beside the model: each step is compared."""

    def __init__(self, batches: Any, pipeline: Pipeline, in_order: bool = True) -> None:
        self.batches, self.in_order, self.num_compared = batches, in_order, 0
        self.reader = Reader(pipeline)
        self.iterator: Any = None
        self.last: Any = None  # what was delivered last: a batch or an error

    def begin(self) -> None:
        self.reader.begin()
        self.iterator = iter(self.batches)

    def next(self) -> bool:
        """Read one. False: the pass is over."""
        if self.iterator is None:
            self.begin()
        is_at_end, reader = self.reader.is_at_end(), self.reader
        try:
            got = next_of(self.iterator)
        except StopIteration:
            assert is_at_end or reader.may_be_over, f"the pass ended, but there is {told(reader.left[0])}"
            reader.end()
            self.iterator = None
            return False
        assert not is_at_end, f"a batch more than there are: {told(got)}"
        left = [told(each) for each in (reader.left[:1] if self.in_order else reader.left)]
        assert told(got) in left, f"epoch {reader.epoch}: got {got}, not {reader.left[: len(left)]}"
        reader.take(left.index(told(got)))
        self.last = got
        self.num_compared += 1
        return True

    def epoch(self) -> None:
        """Read all of a pass."""
        self.begin()
        while self.next():
            pass
