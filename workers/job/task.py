"""Defines a worker's task: to compute each job's items (batches or samples) from a source and a chain of functions."""

from __future__ import annotations

import enum
import functools
import inspect
import pickle
from collections.abc import Callable, Iterable, Iterator
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Protocol

from workers.checks import short
from workers.errors import add_note

from . import context
from .context import forget_epoch, is_in_worker_process, mark
from .function_use import called, is_measured
from .generators import Generators, History
from .stream import Stream

if TYPE_CHECKING:
    from .portions import PortionSender


def single_function_to_run(batch: Any, function_to_run: Any) -> Any:
    """Apply the list of functions ``function_to_run`` to ``batch``, and return the result. Source: ``trw.train``."""
    for function in function_to_run:
        batch = function(batch)
    return batch


_END = object()


class Loose(enum.Enum):
    """A marker: the first item of a job whose other items are samples, of which the consumer has to make a batch."""

    SAMPLES = enum.auto()
    FEWER = enum.auto()  # at most one sample for each index: some were skipped


class JobSource(Protocol):
    """A source with a method that computes the items of a job. For other sources, they are ``[source[index]]``."""

    @property
    def _has_lists(self) -> bool:
        """True if a job of this source may have any number of items; False if it always has exactly one."""

    def _items_of_job(self, index: int) -> list[Any]:
        """Return the items (batches or samples) of job ``index``. Call it within a job, whose generators are seeded."""


class MakesItems(JobSource, Protocol):
    """A source that makes its items (batches or samples) by applying functions to the items of another source."""

    def _items_at(self, index: int, job: int | None, source: Any = None) -> list[Any]:
        """Return the items at position ``index`` of the epoch's order, made from items of ``source``.

        Call it within a job, whose generators are seeded.

        Args:
            job: the number of the job that makes the items; None for the job at position ``index``.
            source: where to get items from; None for the source that this one was made from.
        """


def knows_items(source: Any) -> bool:
    """Return True if ``source`` is a :class:`JobSource`, which has a method that computes the items of a job."""
    return hasattr(type(source), "_items_of_job")


def makes_items(source: Any) -> bool:
    """Return True if ``source`` is a :class:`MakesItems`, which applies functions to the items of another source."""
    return hasattr(type(source), "_items_at")


def chain_of(source: Any) -> tuple[Any, ...]:
    """Return ``source`` and all sources that it was made from, directly or not, each once, in depth-first order."""
    found: list[Any] = []
    waiting = [source]
    while waiting:
        each = waiting.pop()
        if not any(each is known for known in found):
            found.append(each)
            waiting += reversed(made_from(each))
    return tuple(found)


def made_from(source: Any) -> list[Any]:
    """Return the sources that ``source`` was directly made from. Its attribute ``source_split`` holds one of them.
    Each attribute that its class lists in ``_names_beside`` holds another one, or a tuple of others."""
    attributes = getattr(source, "__dict__", None)  # not getattr(source, name): a class may forward unknown names
    if not isinstance(attributes, dict):
        return []
    found = [attributes[name] for name in getattr(type(source), "_names_beside", ()) if name in attributes]
    others = [each for value in found for each in (value if isinstance(value, tuple) else (value,))]
    return [*others, *([] if attributes.get("source_split") is None else [attributes["source_split"]])]


def items_of_job(source: Any, index: int) -> list[Any]:
    """Return the items (batches or samples) of job ``index`` of any ``source``.
    Call it within a job, whose generators are seeded."""
    return source._items_of_job(index) if knows_items(source) else [source[index]]


def _put_together(items: list[Any], made_by: Any) -> list[Any]:
    """Return the next function's input: [the batch that ``made_by`` makes of the samples in ``items``], or [] if none.

    Raises:
        TypeError: only the loop can make a batch of these samples.
    """
    if items[0] is Loose.FEWER and hasattr(made_by, "put_together"):
        return [made_by.put_together(items[1:])] if len(items) > 1 else []
    raise TypeError(
        "a function before .batch() returns lists, so the batches are put together in the loop, and no function can be "
        "applied to them before: work on batches in the loop, or return one sample from each call of the function"
    )


#: The attribute of an error of a sample that holds the rest of its job: ((epoch, index) of the job, items of the
#: samples that raised no error, errors of other samples).
LEFT = "_workers_left"

#: The attribute of the error of a sample of a batch that holds the index of the sample.
SAMPLE = "_workers_sample"


def left_of(error: BaseException) -> Any:
    """Remove and return the attribute ``LEFT`` of ``error``, which holds the rest of its job; None if it is not set."""
    return getattr(error, "__dict__", {}).pop(LEFT, None)


def one_of(items: list[Any]) -> Any:
    """Return the only item in ``items``, or the list ``items`` itself if it does not hold exactly one.
    Raise a TypeError for loose samples, as only the loop can make batches of them."""
    if items and isinstance(items[0], Loose):
        raise TypeError(
            "a function before .batch() returns lists, or samples were skipped, so the samples of a batch are known "
            "only in a loop over all batches: use `for batch in ...` instead of an index"
        )
    return items[0] if len(items) == 1 else items


class Task:
    """What jobs compute: functions applied to the items of a source. Each worker has a copy of the task.

    Args:
        source: returns the items at each index; None if each job is sent the item that it works on.
        functions: one for each SequenceMap (``.map()``, ``.prefetch()``) of the chain, in order. If there is none, the
            source's items are delivered.
        seed: the seed of all random draws.
        as_items: for each function, True if the items of a list that it returns are delivered one by one, False if the
            list is one batch. By default, it is True for all.
        worker_init_fn: called with the worker's number in each worker, before its first job.
    """

    def __init__(
        self,
        source: Any,
        functions: tuple[Callable[[Any], Any], ...],
        seed: int,
        as_items: Any = None,
        worker_init_fn: Callable[[int], object] | None = None,
    ) -> None:
        self.source = source
        self.functions = functions
        self.as_items = tuple(as_items) if as_items else (True,) * len(functions)
        self.seed = seed
        self.worker_init_fn = worker_init_fn
        self.unpack: Callable[[Any], Any] | None = None  # unpacks the item sent with a job; None: it is not packed
        self.private: Callable[[Any], Any] | None = None  # returns items that functions may write into
        self._knows_items = knows_items(source)
        self.history: History | None = None  # of the searches for its generators
        makes_batches = bool(functions) and hasattr(functions[0], "put_together")
        self._has_more = len(functions) > makes_batches  # functions that work on batches

    def generators(self) -> Generators:
        """Return an object that finds and seeds the random generators that the source and the functions hold."""
        return Generators(lambda: [("source", self.source), ("functions", self.functions)], self.history)

    def __getstate__(self) -> dict[str, Any]:
        # As bytes: a dict that is created anew each time would count as a change.
        return {**self.__dict__, "history": pickle.dumps(self.generators().to_send())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        forget_epoch()
        self.__dict__.update(state)
        self.history = History(pickle.loads(state["history"]))
        self.generators().look_first()  # now, as worker_init_fn may replace them by generators of other origins

    def take_over(self, before: Task) -> None:
        """Take over the findings about random generators from ``before``, the worker's previous copy of the task.
        They hold for unchanged objects, which were moved with their generators from that copy to this one."""
        assert self.history is not None
        assert before.history is not None
        history = History(self.history.told)
        history.found = dict(before.history.found)
        self.history = history
        self.generators().look_first()

    def stream(self, generators: Generators | None = None) -> Stream:
        """Return a stream, the source of the jobs' random numbers, which also seeds ``generators`` for each job."""
        return Stream(self.seed, generators, chain_of(self.source))

    def init_worker(self, worker: int) -> None:
        """Call ``worker_init_fn`` with ``worker``, the number of this worker, if a ``worker_init_fn`` was given.
        If the function raises an error, add a note to it that says so."""
        if self.worker_init_fn is None:
            return
        try:
            self.worker_init_fn(worker)
        except BaseException as error:
            add_note(error, f"raised in worker_init_fn({worker})")
            raise

    def run(self, index: int, payload: tuple[Any] | None, source: Any = None) -> list[Any]:
        """Compute and return the items (batches or samples) of job ``index``.
        They are made from the item in ``payload``; if that is None, from the items of ``source`` at ``index``, by
        default those of the task's own source."""
        try:
            return self._run(index, payload, source)
        except Exception as error:
            if self._has_more:
                left_of(error)  # drop the rest of the job: functions would still have to work on its items
            raise

    def _run(self, index: int, payload: tuple[Any] | None, source: Any) -> list[Any]:
        current = context.current
        portions, current.portions = current.portions, None  # not for jobs that run within this one
        current.is_delivered = current.is_delivered and payload is None and not self.functions
        mark("source")
        if payload is not None:
            items = [payload[0] if self.unpack is None else self.unpack(payload[0])]
        elif source is not None:
            items = items_of_job(source, index)
        elif self._knows_items:
            items = self.source._items_of_job(index)
        else:
            items = [self.source[index]]
        if self.functions:
            mark("function_to_run")
        are_private = payload is not None and is_in_worker_process()  # just unpickled
        made = self._applied(items, 0, are_private)
        return made if isinstance(made, list) else _sent(iter(made), portions)

    def _applied(self, items: list[Any], start: int, are_private: bool) -> Iterable[Any]:
        """Apply the functions from number ``start`` on to ``items``. Return a list of the results, or an iterator over
        them if a function has returned a generator. ``are_private``: functions may write into the items."""
        made_by = self.functions[start - 1] if start else self.source
        for at in range(start, len(self.functions)):
            function, as_items = self.functions[at], self.as_items[at]
            if items and isinstance(items[0], Loose):
                items = _put_together(items, made_by)
            elif self.private is not None and not are_private:
                items = self.private(items)
            made_by, are_private = function, False
            if is_measured():
                results = [called(function, item) for item in items]
            else:
                results = [function(item) for item in items]
            if any(type(result) is GeneratorType for result in results):
                return self._yielded(results, at)
            items = []
            for result in results:
                if type(result) is list and as_items:  # not a tuple, which is one batch
                    items.extend(result)
                else:
                    items.append(result)
        return items

    def _yielded(self, results: list[Any], at: int) -> Iterator[Any]:
        """Yield what the functions behind function ``at`` make of each item in its ``results``, some of which are
        generators: the next item is asked for when they are done with the last one."""
        for item in self._each_of(results, self.as_items[at]):
            yield from self._applied([item], at + 1, True)

    def _each_of(self, results: list[Any], as_items: bool) -> Iterator[Any]:
        """Yield the items in the ``results`` of a function, among which are generators. A generator's items are copied,
        as it may reuse memory."""
        results.reverse()
        while results:
            result = results.pop()
            if type(result) is GeneratorType:
                if not as_items:
                    raise TypeError(
                        "the function has returned a generator, which is no batch: return a list or an array, or write "
                        ".map(function), which delivers what a generator yields one by one"
                    )
                for item in result:
                    yield from [item] if self.private is None else self.private([item])
            elif type(result) is list and as_items:
                yield from result
            else:
                yield result


def _sent(items: Iterator[Any], portions: PortionSender | None) -> list[Any]:
    """Send ``items`` in ``portions``, but for the last ones, which are returned.

    If an error is raised, all items before it are sent, so that the loop gets the same ones however fast they come.
    """
    left: list[Any] = []
    if portions is not None:
        portions.begin_run()
    while True:
        try:
            item = next(items, _END)
        except BaseException:
            if portions is not None:
                portions.send(left)
            raise
        if item is _END:
            return left if portions is None else portions.unsent(left)
        if left and portions is not None and portions.is_due:
            portions.send(left)
        left.append(item)
        del item


def is_generator_function(function: Any) -> bool:
    """Return True if ``function``, which :func:`one_function` has returned, is known to return a generator."""
    if isinstance(function, functools.partial) and function.func is single_function_to_run:
        return is_generator_function(function.keywords["function_to_run"][-1])
    call = vars(type(function)).get("__call__")  # of an object that can be called
    return inspect.isgeneratorfunction(function) or inspect.isgeneratorfunction(call)


def one_function(function_to_run: Any) -> Any:
    """Turn ``function_to_run`` (a function, a list of functions, or None) into one function, or None.
    Raise a TypeError for anything else."""
    if function_to_run is None or callable(function_to_run):
        return function_to_run
    if isinstance(function_to_run, (list, tuple)) and function_to_run and all(map(callable, function_to_run)):
        return functools.partial(single_function_to_run, function_to_run=list(function_to_run))
    raise TypeError(f"function_to_run must be a function, a list of functions or None, not {short(function_to_run)}")
