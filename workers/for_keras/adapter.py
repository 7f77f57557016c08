"""Makes ``model.fit``, ``evaluate`` and ``predict`` read a Sequence with workers: each epoch is one pass over it.

Keras wraps its input in a *data adapter*. For a PyDataset this is ``PyDatasetAdapter``, which asks for one batch at a
time and waits for each. :func:`install` replaces this name, in the module where Keras looks it up, by a function. For a
Sequence, the function returns an object of a subclass of ``PyDatasetAdapter``. This object takes its batches from a
pass, gets the arguments that Keras gives its own adapter (``shuffle``, ``class_weight``), and draws the order where
Keras would, from the same generator. All else is left to Keras. If this version of Keras has no such name, its own
adapter is used, without workers, and a warning is logged.

The end of an epoch has to be inferred. Keras reads a batch or two to learn their shapes and then calls ``reset()``. It
makes iterators that it never reads, keeps one for several epochs of ``steps_per_epoch``, and gives no sign when ``fit``
is left in the middle. So:

- nothing happens before the first batch of an iterator is asked for;
- batches read before the first ``on_epoch_end`` do not count;
- an epoch is over when all its batches were read and Keras calls ``on_epoch_end``, or when a new pass begins.

TensorFlow reads the batches from a generator. ``fit`` would report an exception in it as an error of TensorFlow. So the
generator ends instead, and ``on_epoch_end``, which Keras then calls in the thread of ``fit``, raises the exception.

TensorFlow never releases the generator, so the generator refers to the sequence only weakly. While ``fit`` runs, it
keeps the sequence alive.

Source: ``keras.src.trainers.data_adapters``, Keras 3.8 to 3.15.
"""

from __future__ import annotations

import functools
import logging
import random
import sys
import weakref
from collections.abc import Iterator
from collections.abc import Sequence as OrderOf
from typing import Any

from workers.errors import (
    PrefetchError,
    RemoteTraceback,
    StalePassError,
    StateError,
    add_note,
)
from workers.frameworks.keras import ENDLESS
from workers.job.task import chain_of
from workers.sequence.base import Sequence, count_batches

from .reading import EndOfSource, FitReading, is_read_as_it_comes

logger = logging.getLogger("workers")

_MODULE = "keras.src.trainers.data_adapters"
_PROBED = 2  # batches that Keras may read to learn their shapes


def install() -> bool:
    """Make Keras read sequences with workers, by replacing its data adapter. Return False if Keras is not loaded."""
    module: Any = sys.modules.get(_MODULE)
    original = getattr(module, "PyDatasetAdapter", None)
    if module is None or hasattr(original, "for_sequences"):
        return module is not None
    if original is None or not hasattr(original, "_get_iterator"):
        _warn_of_unknown_keras()
        return True
    ours = _adapter_class(original)

    @functools.wraps(original, updated=())
    def choose(x: Any, *args: Any, **kwargs: Any) -> Any:
        return (ours if isinstance(x, Sequence) else original)(x, *args, **kwargs)

    choose.for_sequences = ours  # type: ignore[attr-defined]
    module.PyDatasetAdapter = choose
    return True


@functools.cache
def _warn_of_unknown_keras() -> None:
    version = getattr(sys.modules.get("keras"), "__version__", "?")
    logger.warning("model.fit computes the batches in its own process: Keras %s has no known data adapter", version)


def _adapter_class(original: Any) -> Any:
    class SequenceAdapter(original):  # type: ignore[misc]
        """The data adapter through which Keras reads a Sequence. Its batches come from a :class:`Feed`."""

        def __init__(self, x: Any, class_weight: Any = None, shuffle: bool = False) -> None:
            super().__init__(Feed(x), class_weight=class_weight, shuffle=shuffle)

        def _get_iterator(self) -> Iterator[Any]:
            return map(self._standardize_batch, self.py_dataset.batches(self.shuffle))

        def get_tf_dataset(self) -> Any:
            self.py_dataset.is_for_tensorflow = True
            return super().get_tf_dataset()

        def on_epoch_begin(self) -> None:
            self._within_epoch = False  # else Keras raises an error if the last epoch was left in the middle
            super().on_epoch_begin()

    return SequenceAdapter


_begun_last: list[Any] = [lambda: None]  # [a weak reference to the Feed whose epoch Keras has begun last]


def sequence_in_fit() -> Any:
    """Return the sequence whose epoch Keras is reading, the one begun last of several; None if there is none."""
    feed = _begun_last[0]()
    return feed.sequence if feed is not None and feed.is_within else None


class Feed:
    """The dataset that Keras's data adapter gets in place of ``sequence``. Workers compute its batches."""

    workers = 1
    use_multiprocessing = False
    max_queue_size = 10

    def __init__(self, sequence: Any) -> None:
        self._sequence = weakref.ref(sequence)
        self.is_for_tensorflow = False
        self._is_new = True  # on_epoch_end was not called yet: Keras may still be learning shapes
        self.is_within = False  # True while Keras is within an epoch
        self._reading: FitReading | None = None  # the last pass, if it has not ended its epoch
        self._probe: FitReading | None = None  # from it, Keras learns the shapes of a source that has only __iter__
        self._last: Any = None  # a weak reference to the last pass over such a source
        self._error: BaseException | None = None  # to be raised by on_epoch_end

    @property
    def sequence(self) -> Any:
        sequence = self._sequence()
        if sequence is None:
            raise PrefetchError("the sequence given to Keras no longer exists: keep a reference to it")
        return sequence

    @property
    def num_batches(self) -> int | None:
        return count_batches(self.sequence)

    def __getitem__(self, index: int) -> Any:
        """Return batch ``index``, from which Keras learns the shapes of batches."""
        if not is_read_as_it_comes(self.sequence):
            return FitReading(self.sequence, [index]).next()
        if index == 0 or self._probe is None:
            self._probe = FitReading(self.sequence, None)
        try:
            return self._probe.next()
        except EndOfSource:
            if index == 0:
                name = type(chain_of(self.sequence)[-1]).__name__
                raise ValueError(f"{name} has no batches in epoch {self.sequence.epoch}") from None
            return self._probe.again()

    def on_epoch_begin(self) -> None:
        self.is_within, _begun_last[0] = True, weakref.ref(self)
        sequence = self.sequence
        if not self._is_new:
            sequence._check_open()
            sequence._clock.begin_epoch(sequence)

    def on_epoch_end(self) -> None:
        is_reset, self.is_within = not self.is_within, False
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
        """Yield the batches of one epoch, in random order if ``shuffle``. Start nothing before the first request."""
        try:
            yield from self._pass(shuffle)
        except Exception as error:
            if isinstance(error.__cause__, RemoteTraceback):  # Keras removes the cause of an error
                add_note(error, str(error.__cause__))
            if not self.is_for_tensorflow:
                raise
            self._error = error

    def _pass(self, shuffle: bool) -> Iterator[Any]:
        if not self._is_new:
            self._end_epoch()  # the last pass was read to its end, or left
        if is_read_as_it_comes(self.sequence):
            yield from self._stream()
            return
        order, number = self._order(shuffle), 0
        while self._is_new and number < min(_PROBED, len(order)):
            yield FitReading(self.sequence, order[number : number + 1]).next()
            number += 1
        reading = FitReading(self.sequence, order[number:], is_probe=self._is_new)
        self._reading = None if self._is_new else reading
        while not reading.is_whole:
            yield reading.next()

    def _stream(self) -> Iterator[Any]:
        """Yield the batches of a source that has only ``__iter__``.
        Each call restarts the source, even if Keras has read only a few batches so far, to learn their shapes."""
        self._check_at_start()
        self._probe, reading = None, FitReading(self.sequence, None, is_probe=self._is_new)
        self._last = last = weakref.ref(reading)
        self._reading = None if self._is_new else reading
        try:
            while True:
                yield reading.next()
        except EndOfSource:
            pass
        except StalePassError:
            if self._last is last:  # else TensorFlow is still reading a pass that it has given up
                raise

    def _check_at_start(self) -> None:
        if not self.sequence._clock.start.is_at_start:
            raise StateError("model.fit needs a whole epoch, but the loaded state is within one: finish it in a loop")

    def _order(self, shuffle: bool) -> OrderOf[int]:
        sequence = self.sequence
        self._check_at_start()
        length = count_batches(sequence)
        if length is None:
            return range(ENDLESS)
        order = list(range(length))
        if shuffle and not sequence.is_stream:
            random.shuffle(order)  # as Keras does, and at the same point of the program
        return order
