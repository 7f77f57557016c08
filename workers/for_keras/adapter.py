"""How ``model.fit``, ``evaluate`` and ``predict`` read a Sequence: an epoch is one pass over its workers' batches.

Keras wraps what it is given in a *data adapter*. For a PyDataset that is ``PyDatasetAdapter``, which asks for one
batch after the other and waits for each. :func:`install` puts a function in the place of that name, in the module in
which Keras looks it up: for a Sequence it returns a subclass, told all that Keras tells its own (``shuffle``,
``class_weight``), whose batches come from a pass. The order is drawn where Keras draws it, from the same generator. All
else is Keras's. Where this Keras has no such name, its own adapter is used, without workers; the log says so.

When an epoch is over must be found out. Keras reads a batch or two to learn their shapes and then calls ``reset()``,
makes iterators that it never reads, keeps one for several epochs of ``steps_per_epoch``, and says nothing at all when
``fit`` is left in the middle. So:

- nothing happens before the first batch of an iterator is asked for;
- what was read before the first ``on_epoch_end`` does not count;
- an epoch is over when all its batches were read and Keras says ``on_epoch_end``, or when a new pass begins.

An exception within TensorFlow's generator would come out of ``fit`` as one of TensorFlow's. So there the generator
ends, and the exception is raised by ``on_epoch_end``, which Keras then calls in the thread of ``fit``.

TensorFlow holds for ever what it generates from. So the sequence is held weakly: ``fit`` holds it while it runs.

Source: ``keras.src.trainers.data_adapters``, Keras 3.8 to 3.15.
"""

from __future__ import annotations

import functools
import logging
import queue
import random
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from workers.batch.nodes import is_list, node_of
from workers.errors import (
    NotPicklableError,
    PlatformError,
    PrefetchError,
    RemoteTraceback,
    StalePassError,
    StateError,
    add_note,
)
from workers.job.task import Loose, items_of_job

logger = logging.getLogger("workers")

_MODULE = "keras.src.trainers.data_adapters"
_PROBED = 2  # batches that Keras may read to learn their shapes
_POLL_S = 0.1  # how often a waiting generator looks whether a loop of the user's has taken the workers over

#: What makes the front-end of a sequence that was given to Keras without one. Filled by ``loader``.
make_front: list[Callable[[Any], Any]] = []


def install() -> None:
    """Have Keras, which is loaded, read sequences by passes."""
    module: Any = sys.modules.get(_MODULE)
    original = getattr(module, "PyDatasetAdapter", None)
    if module is None or hasattr(original, "for_sequences"):
        return
    if original is None or not hasattr(original, "_get_iterator"):
        _warn_of_unknown_keras()
        return
    ours = _adapter_class(original)

    @functools.wraps(original, updated=())
    def choose(x: Any, *args: Any, **kwargs: Any) -> Any:
        return (ours if hasattr(type(x), "_begin_epoch") else original)(x, *args, **kwargs)

    choose.for_sequences = ours  # type: ignore[attr-defined]
    module.PyDatasetAdapter = choose


@functools.cache
def _warn_of_unknown_keras() -> None:
    version = getattr(sys.modules.get("keras"), "__version__", "?")
    logger.warning("model.fit computes the batches in its own process: Keras %s is not known", version)


def _adapter_class(original: Any) -> Any:
    class SequenceAdapter(original):  # type: ignore[misc]
        """Keras's adapter, whose batches come from a :class:`Feed`."""

        def __init__(self, x: Any, class_weight: Any = None, shuffle: bool = False) -> None:
            super().__init__(Feed(x), class_weight=class_weight, shuffle=shuffle)

        def _get_iterator(self) -> Iterator[Any]:
            return map(self._standardize_batch, self.py_dataset.batches(self.shuffle))

        def get_tf_dataset(self) -> Any:
            self.py_dataset.is_for_tensorflow = True
            return super().get_tf_dataset()

        def on_epoch_begin(self) -> None:
            self._within_epoch = False  # Keras's own raises where an epoch was left in the middle
            super().on_epoch_begin()

    return SequenceAdapter


class Feed:
    """What Keras's adapter takes for the dataset."""

    workers = 1
    use_multiprocessing = False
    max_queue_size = 10

    def __init__(self, sequence: Any) -> None:
        self._sequence = weakref.ref(sequence)
        self.is_for_tensorflow = False
        self._is_new = True  # on_epoch_end was not called yet: Keras may still be learning shapes
        self._is_within = False  # an epoch of Keras's
        self._reading: Reading | None = None  # the pass that was begun last and has not ended its epoch
        self._error: BaseException | None = None  # to be raised by on_epoch_end

    @property
    def sequence(self) -> Any:
        sequence = self._sequence()
        if sequence is None:
            raise PrefetchError("the sequence that Keras was given exists no more")
        return sequence

    @property
    def num_batches(self) -> int:
        return len(self.sequence)

    def __getitem__(self, index: int) -> Any:
        """Batch ``index``, for its shape."""
        return Reading(self.sequence, [index]).next()

    def on_epoch_begin(self) -> None:
        self._is_within = True
        sequence = self.sequence
        if not self._is_new:
            sequence._check_open()
            sequence._clock.begin_epoch(sequence)

    def on_epoch_end(self) -> None:
        is_reset, self._is_within = not self._is_within, False
        is_new, self._is_new = self._is_new, False
        error, self._error = self._error, None
        if error is not None:
            raise error
        reading = self._reading
        if reading is not None and (reading.is_whole or is_reset):
            self._end_epoch()
        elif is_new:
            sequence = self.sequence
            if sequence._clock.is_begun:  # another fit, or a loop, was left in the middle
                sequence._clock.end_epoch(sequence)

    def _end_epoch(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.end_epoch()

    def batches(self, shuffle: bool) -> Iterator[Any]:
        """One pass. A generator: nothing happens before its first batch is asked for."""
        try:
            yield from self._pass(shuffle)
        except Exception as error:
            if isinstance(error.__cause__, RemoteTraceback):  # Keras takes the cause away from what it lets through
                add_note(error, str(error.__cause__))
            if not self.is_for_tensorflow:
                raise
            self._error = error

    def _pass(self, shuffle: bool) -> Iterator[Any]:
        if not self._is_new:
            self._end_epoch()  # of a pass that was read to its end, or left
        order, number = self._order(shuffle), 0
        while self._is_new and number < min(_PROBED, len(order)):
            yield Reading(self.sequence, order[number : number + 1]).next()
            number += 1
        reading = Reading(self.sequence, order[number:], is_probe=self._is_new)
        self._reading = None if self._is_new else reading
        while not reading.is_whole:
            yield reading.next()

    def _order(self, shuffle: bool) -> list[int]:
        sequence = self.sequence
        if not sequence._clock.start.is_at_start:
            raise StateError("model.fit begins with a whole epoch, and the state that was loaded is within one")
        order = list(range(len(sequence)))
        if shuffle and not sequence.is_stream:
            random.shuffle(order)  # as Keras does it, and when
        return order


class Reading:
    """A pass over the batches at ``order`` of the current epoch, as Keras wants them: one for each index.

    Where a loop of the user's, in a callback, takes the workers over, what is left is computed in this process. A state
    does not count it. It holds the sequence weakly.
    """

    def __init__(self, sequence: Any, order: list[int], is_probe: bool = True) -> None:
        sequence._check_open()
        clock = sequence._clock
        clock.begin_epoch(sequence)
        self._sequence = weakref.ref(sequence)
        self._order = order
        self._is_probe = is_probe
        self._clock, self._epoch, self._version = clock, clock.epoch, clock.version
        self._num_read = 0
        self._last: list[Any] = []  # the items that were read last
        front = front_of(sequence)
        self._front = None if front is None else weakref.ref(front)
        self._pass = None if front is None else front._begin_apart(order)

    @property
    def is_whole(self) -> bool:
        """All its batches were read."""
        return self._num_read == len(self._order)

    def end_epoch(self) -> None:
        """The epoch is over, unless somebody else has ended it."""
        sequence = self._sequence()
        if sequence is not None and (self._clock.epoch, self._clock.version) == (self._epoch, self._version):
            front = None if self._front is None else self._front()
            if front is not None and self._pass is not None:
                front._consumer.tell_of_epoch(self._epoch)
            self._clock.end_epoch(sequence)

    def next(self) -> Any:
        """The next batch. In the place of one that is skipped: the one before, or the first that can be had."""
        if not self._is_probe:
            self._clock.is_fitted = True
        items = self._items(self._order[self._num_read])
        self._num_read += 1
        if not items:
            items = self._last or self._another()
        self._last = items
        return items[0] if len(items) == 1 else items

    def _items(self, index: int) -> list[Any]:
        front = None if self._front is None else self._front()
        if front is not None and self._pass is not None:
            while True:
                try:
                    items: list[Any] = front._items_for_fit(front._next_items(self._pass, _POLL_S))
                    break
                except queue.Empty:
                    continue
                except StalePassError:
                    self._pass = None
                    return self._items(index)
        else:
            sequence: Any = self._sequence()
            job = sequence._job_at(index, self._epoch)
            items = sequence._run_job(job, lambda: items_of_job(sequence, index), self._epoch)
            items = sequence._items_for_fit(items)
        if items and (isinstance(items[0], Loose) or (len(items) > 1 and all(map(_is_batch, items)))):
            raise TypeError("function_to_run returns a list of batches, one by one; Keras wants one for each index")
        return items

    def _another(self) -> list[Any]:
        """A batch in the place of the first one, which is skipped: the first that can be had."""
        first = self._order[0]
        sequence: Any = self._sequence()
        for step in range(1, len(sequence)):
            index = (first + step) % len(sequence)
            items: list[Any] = sequence._run_job(
                sequence._job_at(index, self._epoch), functools.partial(items_of_job, sequence, index), self._epoch
            )
            items = sequence._items_for_fit(items)
            if items:
                return items
        raise PrefetchError("all batches were skipped")


def _is_batch(item: Any) -> bool:
    return node_of(item) is not None and not is_list(item)


def front_of(sequence: Any) -> Any:
    """The front-end whose workers compute the batches of ``sequence``; None: it has to be done in this process."""
    if hasattr(type(sequence), "_begin_apart"):
        return sequence
    if sequence.is_stream:  # nothing is left to do for workers
        return None
    if "_fit" not in sequence.__dict__:
        try:
            sequence.__dict__["_fit"] = make_front[0](sequence)
        except (NotPicklableError, PlatformError) as error:
            logger.warning("model.fit computes the batches in its own process: %s", error)
            sequence.__dict__["_fit"] = None
    return sequence.__dict__["_fit"]
