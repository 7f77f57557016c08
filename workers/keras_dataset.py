"""A Sequence as Keras sees it: a ``keras.utils.PyDataset`` whose batches come from a pool of workers.

``fit`` asks for ``sequence[i]``, i in an order of its own, one after the other, and waits for each. To have them
computed ahead, the order is foreseen: Keras shuffles by Python's global generator right after it has read
``num_batches``, so the generator's state at that moment tells the order. Each index it then asks for is compared; where
it is another one the order is foreseen anew, or, failing that, the batch is computed when asked for. So a wrong guess
costs time, and never a batch.

Keras also asks for batches to learn their shapes, and says that an epoch has ended before the first one. An epoch has
therefore ended when all its batches were asked for, and what comes before the first such call does not count.

Keras's own threads are not used (``workers`` is 1): they take 0.1 s at each epoch's end, and on its JAX and torch
backends they hand over what was asked for in the probe as the first batches of the epoch, in the place of others.

Source: ``keras.utils.PyDataset``, Keras 3.
"""

from __future__ import annotations

import copyreg
import logging
import random
import sys
import threading
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

logger = logging.getLogger("workers")


class KerasUse:
    """What Keras does with a Sequence. Not part of what is pickled."""

    def __init__(self) -> None:
        self.thread: int | None = None  # that gave it to Keras; None: Keras does not use it
        self.is_new = False  # nothing was done with it but probes
        self.is_within = False  # an epoch
        self.is_loops = False  # a loop of the user's has begun since Keras began an epoch
        self.epoch = -1  # whose batches are asked for
        self.num_asked = 0  # of them
        self.error: Exception | None = None  # what stops fit
        self.like: Any = None  # what takes the place of a batch that stops fit
        self.front: Any = None  # the pool of a Sequence that has none
        self.lock = threading.Lock()
        self._state: Any = None  # of Python's generator when num_batches was read
        self._asked: list[int] = []  # since then
        self._order: Any = ()  # the indices foreseen
        self._at = 0  # how many of them were asked for

    def __reduce__(self) -> Any:
        return KerasUse, ()

    @property
    def is_asking(self) -> bool:
        """Whether who asks for a batch is Keras in an epoch, and not the user, nor Keras in a probe."""
        if self.thread is None:
            return False
        return threading.get_ident() != self.thread if is_on_tensorflow() else self.is_within

    def begin(self) -> None:
        """Keras is given the Sequence."""
        self.thread = threading.get_ident()
        self.is_new, self.is_within = True, False
        self.error = self.like = None

    def begin_loop(self) -> None:
        """A loop of the user's takes over, for good or in between (in a callback)."""
        self.is_loops = True
        self.forget()

    def forget(self) -> None:
        """What was foreseen is not being computed any more."""
        self._order = ()

    def may_begin_to_ask(self) -> None:
        self._state = random.getstate()
        self._asked = []

    def foresee(self, index: int, epoch: int, num_batches: int) -> list[int] | None:
        """Keras asks for ``index``.

        Returns:
            None: as was foreseen. A list: the order to compute from here on. An empty one: there is no telling.
        """
        if self.epoch != epoch:
            self.epoch, self.num_asked, self._order = epoch, 0, ()
        if not self.is_new:
            self.num_asked += 1
        self._asked.append(index)
        if self._at < len(self._order) and self._order[self._at] == index:
            self._at += 1
            return None
        order = self._guess(num_batches)
        if order:
            self._order, self._at = order, 1
        else:
            del self._asked[-1]
        return order

    def _guess(self, num_batches: int) -> list[int]:
        if self._state is not None:
            shuffled, in_order = list(range(num_batches)), list(range(num_batches))
            generator = random.Random()
            generator.setstate(self._state)
            generator.shuffle(shuffled)
            asked = len(self._asked)
            for order in (in_order, shuffled):
                if order[:asked] == self._asked:
                    return order[asked - 1 :]
        return []


class _Computed:
    """An attribute that is computed, unless an instance has set its own."""

    def __init__(self, compute: Callable[[Any], Any]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else self._compute(instance)


class KerasDataset:
    """What makes a Sequence a PyDataset wherever Keras is loaded.

    ``isinstance(sequence, keras.utils.PyDataset)`` is true then, though its type stays what it is; pickled, or in a
    process without Keras, it is nothing else.
    """

    _seen_as: ClassVar[dict[tuple[type, type], type]] = {}

    def _class(self) -> type:
        keras = sys.modules.get("keras")
        dataset = getattr(getattr(keras, "utils", None), "PyDataset", None)
        own = type(self)
        if not isinstance(dataset, type) or issubclass(own, dataset):
            return own
        seen_as = KerasDataset._seen_as.get((own, dataset))
        if seen_as is None:
            names = {"__module__": own.__module__, "__qualname__": own.__qualname__, "_plain": own}
            seen_as = types.new_class(own.__name__, (own, dataset), {}, lambda space: space.update(names))
            KerasDataset._seen_as[own, dataset] = seen_as
        return seen_as

    __class__ = property(_class, object.__dict__["__class__"].__set__)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # pickle compares __class__ with the type, which are not the same here.
        reduced: Any = object.__reduce_ex__(self, max(2, protocol))
        if isinstance(reduced, str):  # the name of a global
            return reduced
        function, arguments, *rest = reduced
        if function is copyreg.__newobj__:  # type: ignore[attr-defined]
            plain = arguments[0].__dict__.get("_plain", arguments[0])
            return (_new, (plain, *arguments[1:]), *rest)
        return (function, arguments, *rest)

    _use: KerasUse

    @property
    def _keras_use(self) -> KerasUse:
        try:
            return self._use
        except AttributeError:
            self._use = KerasUse()
            return self._use

    @_Computed
    def workers(self) -> int:
        """For Keras: how many threads of its own it needs. It reads this when it is given the sequence."""
        self._keras_use.begin()
        return 1

    @_Computed
    def num_batches(self) -> int:
        """For Keras: batches in an epoch. It reads this just before it asks for them."""
        use = self._keras_use
        if use.thread is not None:
            use.may_begin_to_ask()
        return len(self)  # type: ignore[arg-type]

    use_multiprocessing = _Computed(lambda self: False)
    max_queue_size: Any = _Computed(lambda self: 10)

    # -- what Keras calls, of a Sequence

    if TYPE_CHECKING:
        _progress: Any
        _begin_epoch: Any
        _end_epoch: Any
        _end_abandoned_epoch: Any

    def _keras_epoch_begin(self) -> None:
        use = self._keras_use
        use.is_within = True
        if use.is_loops:
            use.is_loops = False
            self._end_abandoned_epoch()
        if not use.is_new:
            self._begin_epoch()

    def _keras_epoch_end(self) -> None:
        use, progress = self._keras_use, self._progress
        use.is_within = False
        if use.error is not None:
            error, use.error = use.error, None
            raise error
        if use.is_new:
            use.is_new = False
            self._end_abandoned_epoch()
        elif progress.is_begun and use.epoch == progress.epoch and use.num_asked >= len(self):  # type: ignore[arg-type]
            self._end_epoch(progress.epoch)

    def _keras_front(self) -> Any:
        """The SequenceMap whose workers compute what Keras asks for; None: it has to be computed here."""
        raise NotImplementedError

    def _keras_batch(self, index: int, compute: Callable[[], Any]) -> Any:
        """Batch ``index``, asked for by Keras; by ``compute`` where it cannot be had from the workers."""
        use, progress = self._keras_use, self._progress
        if use.is_loops:  # its pass must not be revoked
            return compute()
        try:
            with use.lock:
                front = self._keras_front()
                order = use.foresee(index, progress.epoch, len(self))  # type: ignore[arg-type]
                if not use.is_new:
                    progress.is_begun = True
                if front is None or order == []:
                    return compute()
                return front._ask(index, order)
        except Exception as error:
            if use.like is None or use.thread in (None, threading.get_ident()):
                raise
            use.error = error
            return use.like

    def _keras_probed(self, batch: Any) -> Any:
        """Take note of what batches look like."""
        use = self._keras_use
        if use.is_new and use.like is None and is_on_tensorflow():
            use.like = stopping(batch)
        return batch


class PlainDataset:
    """What a PyDataset of the user's derives from in a worker, where it is only asked for batches.

    So a worker need not import Keras and TensorFlow: that takes seconds and 300 MB.
    """

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must define __len__")

    @property
    def num_batches(self) -> int:
        """As Keras has it."""
        return len(self)

    workers = property(lambda self: self._workers)
    use_multiprocessing = property(lambda self: self._use_multiprocessing)
    max_queue_size = property(lambda self: self._max_queue_size)


def plain_dataset() -> type:
    """What a worker finds in place of ``keras.utils.PyDataset``."""
    return PlainDataset


def is_keras_dataset(value: Any) -> bool:
    """Whether ``value`` is the class PyDataset itself."""
    keras: Any = sys.modules.get("keras")
    return keras is not None and value is getattr(getattr(keras, "utils", None), "PyDataset", None)


def _new(cls: Any, *arguments: Any) -> Any:
    return cls.__new__(cls, *arguments)


class StopFit:
    """Stands in for an array. TensorFlow's generator ends where it touches it, without an error of its own.

    So Keras comes back to ``on_epoch_end`` in the thread of ``fit``, where the true error can be raised.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape = shape
        self.dtype = dtype

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise StopIteration

    __tf_tensor__ = __array__


def stopping(batch: Any) -> Any:
    """A batch of the structure of ``batch`` that stops ``fit`` on TensorFlow."""
    is_first = True

    def replaced(part: Any) -> Any:
        nonlocal is_first
        if isinstance(part, Mapping):
            return {key: replaced(each) for key, each in part.items()}
        if isinstance(part, (tuple, list)):
            parts = [replaced(each) for each in part]
            return type(part)(*parts) if hasattr(part, "_fields") else type(part)(parts)
        array = np.asarray(part)
        if is_first:
            is_first = False
            return StopFit(array.shape, array.dtype)
        return np.broadcast_to(np.zeros((), array.dtype), array.shape)  # Keras may compute weights from it

    return replaced(batch)


def is_on_tensorflow() -> bool:
    """Whether Keras computes on TensorFlow."""
    keras: Any = sys.modules.get("keras")
    return keras is not None and bool(keras.config.backend() == "tensorflow")
