"""What a pipeline delivers: the README's words in plain Python, without an engine, workers, or anything computed ahead.

::

    source  --word-->  jobs  --word-->  jobs  ...  --the end of the chain puts them together-->  batches of an epoch

A *job* is what one worker does at one time: it has a number, and all that is drawn in it depends on (seed, epoch,
number). A *word* makes jobs of jobs: some work on what a job delivers (``map``), some put several jobs into one
(``batch``), some change which jobs there are and their order (``shuffle``, ``take``). A :class:`Pipeline` says what
an epoch delivers, and a :class:`Reader` what a loop over it gets: from any place on, over epochs, passes and ``break``.

Taken as given: what ``current_rng()`` draws in a job (:func:`in_job`), the epoch that a repeated source sees, the order
that ``shuffle`` draws for (seed, epoch) (an argument, as it is free to be any permutation), and which samples
``weighted`` draws.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from workers.job import context, seeding

EPOCH_BEGIN, EPOCH_END = seeding.EPOCH_BEGIN, seeding.EPOCH_END  # the numbers of the hooks' jobs

#: ``order(seed, epoch, level, length)``: what the ``level``-th shuffle of a chain (from 0) makes of 0 to length - 1.
Order = Callable[[int, int, int, int], list[int]]


#: ``choice(seed, epoch, weights, length)``: the places that ``weighted`` draws.
Choice = Callable[[int, int, tuple[float, ...], int], list[int]]


class Word(NamedTuple):
    """A method of the chain: Word("batch", (4, True)), Word("prefetch", (), {"on_error": "skip"})."""

    name: str
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = MappingProxyType({})


class Raised(NamedTuple):
    """What ``next()`` raises at the place of a batch."""

    error: Exception


class Samples(NamedTuple):
    """What a job of ``.batch`` has: samples that become a batch when somebody needs it."""

    samples: list[Any]
    is_whole: bool  # each job that was put into it had exactly one: it is a batch by itself
    is_fewer: bool = False  # each had one at most, and one that failed may be left out


class Job(NamedTuple):
    number: int
    items: Callable[[], Iterable[Any]]  # called within the job
    may_fail: bool = False  # on_error="skip" was said: it counts as a job that delivers nothing
    may_have_lists: bool = False  # it may deliver any number of items: behind a function, or where it may fail
    yields: bool = False  # by a generator function: items before an error are delivered


def in_job(seed: int, epoch: int, number: int, function: Callable[[], Any]) -> Any:
    """``function()``, whose draws depend on these numbers alone."""
    return seeding.run_job(seeding.Stream(seed), seeding.Job(epoch, number), function)


# -- words: what they make of the jobs before them


def mapped(jobs: list[Job], function: Callable[[Any], Any], as_items: bool = True) -> list[Job]:
    """``.map(f)``: f of each item; the items of a list that it returns are delivered one by one. Behind a generator
    function, it is asked for each item as it is yielded."""
    makes = inspect.isgeneratorfunction(function)

    def items(job: Job) -> Iterator[Any]:
        for item in job.items():
            result = function(batch_of(item))
            yield from result if makes or (type(result) is list and as_items) else [result]

    def items_of(job: Job) -> Iterable[Any]:
        return items(job) if makes or job.yields else list(items(job))

    return [
        job._replace(
            items=lambda job=job: items_of(job),
            may_have_lists=job.may_have_lists or as_items,
            yields=job.yields or makes,
        )
        for job in jobs
    ]


def collated(jobs: list[Job], function: Callable[[Any], Any] | None = None) -> list[Job]:
    """``.collate(f)``: f of each batch, and a list is one batch. Without f, lists of samples are stacked."""
    return mapped(jobs, function or (lambda item: stacked(item) if type(item) is list and item else item), False)


def sub_batched(jobs: list[Job], size: int, drop_last: bool = False) -> list[Job]:
    """``.sub_batch(n)``: batches of more than n samples are cut; none are joined."""

    def pieces(batch: Any) -> list[Any]:
        length = size_of(batch)
        if length <= size:
            return [batch]
        stop = length // size * size if drop_last else length
        return [cut(batch, at, min(at + size, length)) for at in range(0, stop, size)]

    return mapped(jobs, pieces)


def batched(jobs: list[Job], size: int, drop_last: bool = False, has_index: bool = True) -> list[Job]:
    """``.batch(n)``: n consecutive jobs become one, which draws as one. A sample that fails and may is left out.

    With ``drop_last``, jobs behind the last whole batch belong to it where its own deliver other numbers than one: they
    may fill another one. If there is no whole batch, there is one job all the same, where there may be lists.
    """

    if jobs and jobs[0].yields:  # put together where they are read
        return jobs

    def items(group: list[Job], behind: list[Job]) -> list[Any]:
        each = [outcome(job) for job in group]
        has_one_each = all(len(samples) == 1 for samples in each)
        if drop_last and len(group) < size and has_one_each:
            return []
        if not has_one_each:
            each += [outcome(job) for job in behind]
        samples = [sample for samples in each for sample in samples]
        if not has_index and any(len(samples) != 1 and (samples or not group[0].may_fail) for samples in each):
            raise TypeError("batch() of a source that has only __iter__ wants one sample for each of its items")
        if any(isinstance(sample, Samples) and not sample.is_whole for sample in samples):
            raise TypeError("batches of a function's lists cannot be batched again")
        whole = all(len(samples) == 1 for samples in each)
        is_fewer = group[0].may_fail and all(len(samples) <= 1 for samples in each)
        return [Samples(list(map(batch_of, samples)), whole, is_fewer)] if samples or not is_fewer else []

    groups = [jobs[at : at + size] for at in range(0, len(jobs), size)]
    behind: list[Job] = []
    if drop_last and groups and len(groups[-1]) < size and (len(groups) > 1 or not jobs[0].may_have_lists):
        behind = groups.pop()
    return [
        Job(
            number,
            lambda group=group, behind=behind if group is groups[-1] else []: items(group, behind),
            all(job.may_fail for job in group),
            group[0].may_have_lists,
        )
        for number, group in enumerate(groups)
    ]


def chosen(jobs: list[Job], places: list[int]) -> list[Job]:
    """``.reorder`` and the like: job k has the items of the job at place k, and draws as job k."""
    return [
        jobs[place]._replace(number=number, items=lambda job=jobs[place]: list(job.items()), yields=False)
        for number, place in enumerate(places)
    ]


def seen_from(job: Job, epoch: int) -> Job:
    """The same job, whose source sees ``epoch`` as its own."""
    return job._replace(items=lambda: context.in_round(epoch, lambda: list(job.items())), yields=False)


def grouped(jobs: list[Job], lists: list[list[int]]) -> list[Job]:
    """``.batch_by``: a job for each list. A sample that fails and may is left out, and the batch is smaller."""

    def items(group: list[Job]) -> list[Any]:
        samples = [sample for job in group for sample in outcome(job)]
        if any(isinstance(sample, Samples) and not sample.is_whole for sample in samples):
            raise TypeError("batches of a function's lists cannot be batched again")
        return [stacked(list(map(batch_of, samples)))] if samples else []

    return [
        Job(number, lambda group=[jobs[place] for place in places]: items(group), all(jobs[p].may_fail for p in places))
        for number, places in enumerate(lists)
    ]


def filtered(jobs: list[Job], function: Callable[[Any], Any]) -> list[Job]:
    """``.filter(f)``: each item, or none."""
    return mapped(jobs, lambda item: [item] if function(item) else [])


def outcome(job: Job) -> list[Any]:
    """What a job delivers: nothing, if it fails and may."""
    try:
        return list(job.items())
    except Exception:
        if not job.may_fail:
            raise
        return []


def sharded(jobs: list[Job], rank: int, world: int, remainder: str = "drop") -> list[Job]:
    """``.shard(rank, world)``: every world-th job, as many for each rank; the last ones are dropped, or filled up."""
    steps = len(jobs) // world if remainder == "drop" else -(-len(jobs) // world)
    return [jobs[(step * world + rank) % len(jobs)] for step in range(steps)]


# -- what batches are


def stacked(samples: list[Any]) -> Any:
    """One batch: arrays and numbers along a new first axis, within dicts, tuples and lists; text and bytes as lists."""
    first = samples[0]
    if isinstance(first, dict):
        return {key: stacked([sample[key] for sample in samples]) for key in first}
    if isinstance(first, (tuple, list)):
        return type(first)(stacked(list(column)) for column in zip(*samples, strict=True))
    return samples if isinstance(first, (str, bytes)) or first is None else np.stack(samples)


def batch_of(item: Any) -> Any:
    """What a function is given for an item."""
    if not isinstance(item, Samples):
        return item
    if not (item.is_whole or item.is_fewer):
        raise TypeError("a function before .batch() returns lists: what its batches are is known only in the loop")
    return stacked(item.samples)


def lengths(batch: Any) -> list[int]:
    """Of the arrays and lists of a batch."""
    if isinstance(batch, (dict, tuple)):
        return [length for part in (batch.values() if isinstance(batch, dict) else batch) for length in lengths(part)]
    return [len(batch)] if isinstance(batch, list) or np.ndim(batch) else []


def size_of(batch: Any) -> int:
    """How many samples a batch has."""
    found = set(lengths(batch))
    if not found:
        raise TypeError("a batch must have an array or a list of its samples")
    if len(found) > 1:
        raise ValueError("the arrays and lists of a batch must be of one length")
    return found.pop()


def cut(batch: Any, start: int, stop: int) -> Any:
    """Some samples of a batch: of each array and list; what is neither goes with each part."""
    if isinstance(batch, dict):
        return {key: cut(part, start, stop) for key, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(cut(part, start, stop) for part in batch)
    return batch[start:stop] if isinstance(batch, list) or np.ndim(batch) else batch


def joined(parts: list[Any]) -> Any:
    """One batch of several: arrays and lists joined; of what is neither there is one, or one for each."""
    first = parts[0]
    if isinstance(first, dict):
        return {key: joined([part[key] for part in parts]) for key in first}
    if isinstance(first, tuple):
        return tuple(joined(list(column)) for column in zip(*parts, strict=True))
    if isinstance(first, list):
        return [sample for part in parts for sample in part]
    if np.ndim(first):
        return np.concatenate(parts)
    if all(part == first for part in parts):
        return first
    return np.stack(parts) if isinstance(first, (int, float, np.generic)) else parts


def delivered_by(job: Job) -> tuple[list[Any], list[Raised]]:
    """(what a job delivers, the error behind it)."""
    found: list[Any] = []
    if not job.yields:
        return outcome(job), []
    try:
        for item in job.items():
            found.append(item)  # noqa: PERF402 - an error must not lose those before it
    except Exception as error:
        return found, [] if job.may_fail else [Raised(error)]
    return found, []


# -- the end of the chain: batches of several jobs are put together where they are read


class Whole:
    """Each item is a batch. Those of ``.batch`` are put together anew where their samples are any number."""

    def __init__(self, size: int = 0, drop_last: bool = False) -> None:
        self.size, self.drop_last = size, drop_last
        self.left: list[Any] = []

    def add(self, item: Any) -> list[Any]:
        if not isinstance(item, Samples):
            return [item]
        if item.is_whole and not self.left:
            return [stacked(item.samples)]
        samples = self.left + item.samples
        stop = len(samples) // self.size * self.size
        self.left = samples[stop:]
        return [stacked(samples[at : at + self.size]) for at in range(0, stop, self.size)]

    def remaining(self) -> list[Any]:
        return [stacked(self.left)] if self.left and not self.drop_last else []


class Yielded(Whole):
    """``.batch(n)`` behind a generator function: each item is a sample."""

    def add(self, item: Any) -> list[Any]:
        return super().add(Samples([item], False))


class Rebatched:
    """``.rebatch(n)``: the samples of all batches in batches of exactly n."""

    def __init__(self, size: int, drop_last: bool = False) -> None:
        self.size, self.drop_last = size, drop_last
        self.left: list[Any] = []  # parts of the next batch

    def add(self, item: Any) -> list[Any]:
        if isinstance(item, Samples):
            item = stacked(item.samples) if item.samples else []
        batch = item
        at, length, ready = 0, size_of(batch), []
        while at < length:
            stop = min(length, at + self.size - sum(map(size_of, self.left)))
            self.left.append(cut(batch, at, stop))
            at = stop
            if sum(map(size_of, self.left)) == self.size:
                ready.append(joined(self.left))
                self.left = []
        return ready

    def remaining(self) -> list[Any]:
        return [joined(self.left)] if self.left and not self.drop_last else []


# -- pipelines, and loops over them


class Pipeline:
    """A source, and the words said of it.

    Args:
        source: its ``items(epoch)`` are functions, one for each job; it has the hooks ``on_epoch_begin`` and
            ``on_epoch_end``; ``has_index``: False if it can only be iterated.
        words: in this order. ``prefetch`` is one too: from it on, ``on_error="skip"`` holds.
        seed: of the whole chain.
        order: see :data:`Order`.
        choice: see :data:`Choice`.
    """

    def __init__(self, source: Any, words: list[Word], seed: int, order: Order, choice: Choice) -> None:
        self.source, self.seed, self.order, self.choice = source, seed, order, choice
        self.words = [each for word in words for each in spelled_out(word)]
        self.max_samples = next((word.arguments[0] for word in words if word.name == "max_samples"), None)
        self._epochs: list[tuple[list[Any], bool]] = []

    def epoch(self, epoch: int) -> tuple[list[Any], bool]:
        """(what a loop gets in ``epoch``: batches, and errors at their places; whether jobs follow the last one)."""
        while len(self._epochs) <= epoch:  # hooks see each epoch once
            now = len(self._epochs)
            in_job(self.seed, now, EPOCH_BEGIN, self.source.on_epoch_begin)
            self._epochs.append(self._deliver(now))
            in_job(self.seed, now, EPOCH_END, self.source.on_epoch_end)
        return self._epochs[epoch]

    def jobs(self, epoch: int) -> tuple[list[Job], Any]:
        """(the jobs of an epoch in their order, what puts their items together)."""
        end: Any = Whole()
        yields = False
        for name, arguments, _ in self.words:
            yields = name not in ("reorder", "weighted", "batch_by", "repeat") and (
                yields or (name == "map" and inspect.isgeneratorfunction(arguments[0]))
            )
            if name in ("batch", "batch_by", "rebatch"):
                end = {"batch": Yielded if yields else Whole, "rebatch": Rebatched}.get(name, Whole)(
                    *(arguments if name != "batch_by" else ())
                )
        return self._jobs(self.words, epoch, epoch), end

    def _jobs(self, words: list[Word], epoch: int, round_: int) -> list[Job]:
        """The jobs of ``epoch`` after ``words``, shuffled as in epoch ``round_``."""
        if not words:
            return [Job(number, items) for number, items in enumerate(self.source.items(epoch))]
        *before, (name, arguments, options) = words
        if name == "repeat":
            jobs = []
            for at in range(round_ * arguments[0], (round_ + 1) * arguments[0]):
                jobs += [seen_from(job, at) for job in self._jobs(before, epoch, at)]
            return chosen(jobs, list(range(len(jobs))))
        jobs = self._jobs(before, epoch, round_)
        if name == "prefetch":
            if options.get("on_error") == "skip":
                jobs = [job._replace(may_fail=True, may_have_lists=True) for job in jobs]
        elif name == "shuffle":
            level = sum(word.name == "shuffle" for word in before)
            jobs = [jobs[at] for at in self.order(self.seed, round_, level, len(jobs))] if jobs else []
        elif name == "take":
            jobs = jobs[: arguments[0]]
        elif name == "skip":
            jobs = jobs[arguments[0] :]
        elif name == "weighted":
            jobs = chosen(jobs, self.choice(self.seed, round_, tuple(arguments[0]), len(jobs)))
        elif name not in ("cache", "rebatch", "max_samples"):  # see Whole and Reader for the last two
            known = {"has_index": self.source.has_index} if name == "batch" else {}
            jobs = WORDS[name](jobs, *arguments, **options, **known)
        return jobs

    def _deliver(self, epoch: int) -> tuple[list[Any], bool]:
        (jobs, end), delivered, ends_with_nothing = self.jobs(epoch), [], False
        for job in jobs:
            before = len(delivered)
            try:
                items, errors = in_job(self.seed, epoch, job.number, lambda job=job: delivered_by(job))
                for item in items:
                    delivered += end.add(item)
                delivered += errors
            except Exception as error:
                delivered.append(Raised(error))
            ends_with_nothing = len(delivered) == before
        rest = end.remaining()
        return delivered + rest, not rest and (ends_with_nothing or bool(end.left))


WORDS: dict[str, Callable[..., list[Job]]] = {
    "map": mapped,
    "collate": collated,
    "sub_batch": sub_batched,
    "batch": batched,
    "shard": sharded,
    "reorder": chosen,
    "batch_by": grouped,
    "filter": filtered,
}


def spelled_out(word: Word) -> list[Word]:
    """``prefetch(shuffle=True, batch_size=n)`` is ``.shuffle().batch(n)``; with "skip", of samples that may fail."""
    if word.name != "prefetch":
        return [word]
    found = [Word("shuffle")] if word.options.get("shuffle") else []
    found.append(Word("prefetch", (), word.options))
    if word.options.get("batch_size"):
        found.append(Word("batch", (word.options["batch_size"], word.options.get("drop_last", False))))
    return found


class Place(NamedTuple):
    """Where a loop stands, as a state has it."""

    epoch: int
    left: list[Any]  # of this epoch
    samples: int  # of a pass of max_samples, that were delivered
    may_be_over: bool  # the epoch before may have to end first: jobs without a batch are left, or nobody knows


class Reader:
    """What a loop gets. ``left`` is what is still to come of the epoch, in order."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.go_to(Place(0, list(pipeline.epoch(0)[0]), 0, False))

    def go_to(self, place: Place) -> None:
        """Load a state."""
        self.epoch, left, self.samples, self.may_be_over = place
        self.left = list(left)
        self._is_begun, self._resumes, self._num_ends, self._is_over = False, bool(self.samples), 0, False

    def place(self) -> Place:
        """Take a state: what was delivered counts, and the end of an epoch is the beginning of the next."""
        samples = self.samples if self.samples < (self.pipeline.max_samples or 0) else 0
        if self.left or not (self._is_begun or self.pipeline.epoch(self.epoch)[0]):
            return Place(self.epoch, list(self.left), samples, self.may_be_over)
        may_be_over = self.pipeline.epoch(self.epoch)[1] or not self.pipeline.source.has_index
        return Place(self.epoch + 1, list(self.pipeline.epoch(self.epoch + 1)[0]), samples, may_be_over)

    def begin(self) -> None:
        """``iter()``: what is left of an epoch that was just loaded, else the next epoch, whole. Passes of max_samples
        go on where the last one has ended."""
        self._num_ends, self._is_over = 0, False
        if self.pipeline.max_samples is None:
            if self._is_begun:
                self._next_epoch()
        elif not self._resumes:
            self.samples = 0
        self._resumes = False

    def _next_epoch(self) -> None:
        self.epoch, self._is_begun, self.may_be_over = self.epoch + 1, False, False
        self.left = list(self.pipeline.epoch(self.epoch)[0])

    def is_at_end(self) -> bool:
        """Whether ``next()`` ends the pass. It goes on to the next epoch for passes of max_samples."""
        most = self.pipeline.max_samples
        if most is None or self._is_over:
            return self._is_over or not self.left
        while self.samples < most and self._num_ends < 2:
            if not self.left:
                self._next_epoch()
                self._num_ends += 1
            elif isinstance(self.left[0], Raised) or (lengths(self.left[0]) or [1])[0]:
                return False
            else:
                self.left.pop(0)
        return True

    def end(self) -> None:
        """``next()`` has raised StopIteration."""
        if self.pipeline.max_samples is None and not self._is_over and not self.may_be_over:
            self._next_epoch()
        self._is_over, self.samples, self.may_be_over = True, 0, False

    def take(self, at: int = 0) -> Any:
        """``next()`` has returned what was left at ``at``: the first one, where the order counts."""
        taken = self.left.pop(at)
        self._is_begun, self.may_be_over, self._num_ends = True, False, 0
        if self.pipeline.max_samples is not None and not isinstance(taken, Raised):
            self.samples += (lengths(taken) or [1])[0]
        return taken
