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
import random
import sys
import threading
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from workers.errors import RemoteTraceback, StateError, add_note, presentable
from workers.process import replica


class KerasUse:
    """What Keras does with a Sequence. Not part of what is pickled."""

    def __init__(self) -> None:
        self.thread: int | None = None  # that gave it to Keras
        self.is_new = False  # nothing was done with it but probes
        self.is_within = False  # an epoch
        self.is_loops = False  # a loop of the user's has begun since Keras began an epoch
        self.num_batches = 0  # in an epoch, as far as Keras knows
        self.epoch = (-1, 0)  # whose batches are asked for; the second counts how often the user has set it
        self.num_asked = 0  # of them
        self.error: BaseException | None = None  # what stops fit
        self.like: Any = None  # what takes the place of a batch that stops fit
        self.front: Any = None  # the pool of a Sequence that has none; False: it cannot have one
        self.lock = threading.Lock()
        self._state: Any = None  # of Python's generator when num_batches was read
        self._asked: list[int] = []  # since then
        self._order: Any = ()  # the indices foreseen
        self._at = 0  # how many of them were asked for

    def __reduce__(self) -> Any:
        return KerasUse, ()

    @property
    def is_probing(self) -> bool:
        """Keras asks for what it wants to know the shapes of."""
        return self.is_new and not self.is_within

    def begin(self) -> None:
        """Keras is given the Sequence."""
        self.thread = threading.get_ident()
        self.is_new, self.is_within = True, False
        self.error = self.like = None
        self.forget()

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

    def foresee(self, index: int, epoch: tuple[int, int], num_batches: int) -> list[int] | None:
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


def is_called_by_keras() -> bool:
    """Whether it is Keras that calls the function which asks this. The user may ask for the same in between."""
    return str(sys._getframe(2).f_globals.get("__name__")).startswith("keras.")


class _ForKeras:
    """An attribute that Keras has computed for it. Anybody else finds what was set."""

    def __init__(self, compute: Callable[[Any], Any]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        if is_called_by_keras():
            return self._compute(instance)
        try:
            return instance.__dict__[self._name]
        except KeyError:
            return len(instance) if self._name == "num_batches" else _DEFAULTS[self._name]

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self._name] = value


_DEFAULTS = {"workers": 1, "use_multiprocessing": False, "max_queue_size": None}


def _keras_class() -> type | None:
    """``keras.utils.PyDataset``, where Keras is loaded."""
    dataset = getattr(getattr(sys.modules.get("keras"), "utils", None), "PyDataset", None)
    return dataset if isinstance(dataset, type) else None


class _Quiet:
    """In front of a class, keeps its ``__init_subclass__`` from being called for what is no subclass to its author."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        pass


class KerasDataset:
    """What makes a Sequence a PyDataset wherever Keras is loaded.

    ``isinstance(sequence, keras.utils.PyDataset)`` is true then, though its type stays what it is; pickled, or in a
    process without Keras, it is nothing else.
    """

    def _class(self) -> type:
        dataset, own = _keras_class(), type(self)
        if dataset is None or issubclass(own, dataset):
            return own
        seen_as: type | None = own.__dict__.get("_seen_as_dataset")
        if seen_as is None:
            names = {"__module__": own.__module__, "__qualname__": own.__qualname__, "_plain": own}
            seen_as = types.new_class(own.__name__, (_Quiet, own, dataset), {}, lambda space: space.update(names))
            type.__setattr__(own, "_seen_as_dataset", seen_as)
        return seen_as

    __class__ = property(_class, object.__dict__["__class__"].__set__)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # pickle compares __class__ with the type, which are not the same here.
        reduced: Any = object.__reduce_ex__(self, max(2, protocol))
        if isinstance(reduced, str):  # the name of a global
            return reduced
        function, arguments, *rest = reduced
        if function is copyreg.__newobj__:  # type: ignore[attr-defined]
            function = _new
        if rest and isinstance(rest[0], dict):  # not copied: where it stands, its workers, what was found in it
            rest[0] = {name: value for name, value in rest[0].items() if name not in ("_position", "_keras", "_held")}
        return (_plain(function), tuple(map(_plain, arguments)), *rest)

    @property
    def _keras_use(self) -> KerasUse:
        # Not by attribute: a class may pass on unknown ones to another sequence.
        use: KerasUse | None = self.__dict__.get("_keras")
        if use is None:
            use = self.__dict__["_keras"] = KerasUse()
        return use

    def _workers_for_keras(self) -> int:
        """Threads of its own that Keras needs. It reads this when it is given the sequence."""
        self._keras_use.begin()
        return 1

    def _num_batches_for_keras(self) -> int:
        """Batches in an epoch. Keras reads this when it makes an iterator, and just before it asks for them."""
        use = self._keras_use
        use.may_begin_to_ask()
        num_batches = len(self)  # type: ignore[arg-type]
        if not use.is_within:
            use.num_batches = num_batches
        return num_batches

    #: Its batches are read in order in the consumer's process, and sent to workers. They are in random order already,
    #: so ``model.fit`` is given them as they come, whatever its ``shuffle``.
    is_stream = False

    workers = _ForKeras(_workers_for_keras)
    num_batches = _ForKeras(_num_batches_for_keras)
    use_multiprocessing = _ForKeras(lambda self: False)
    max_queue_size: Any = _ForKeras(lambda self: 10)

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
        was_reset = use.is_new or not use.is_within
        use.is_within = use.is_new = False
        if use.error is not None:
            error, use.error = use.error, None
            use.forget()
            raise error
        if was_reset:
            self._end_abandoned_epoch()
        elif (
            progress.is_begun
            and use.epoch == (progress.epoch, progress.version)
            and use.num_asked >= min(use.num_batches, len(self))  # type: ignore[arg-type]
        ):
            self._end_epoch()

    def _keras_front(self) -> Any:
        """The SequenceMap whose workers compute what Keras asks for; None: it has to be computed here."""
        raise NotImplementedError

    def _keras_batch(self, index: int, compute: Callable[[int], Any]) -> Any:
        """Batch ``index``, asked for by Keras; by ``compute`` where it cannot be had from the workers."""
        use, progress = self._keras_use, self._progress
        try:
            if use.is_loops and not use.is_probing:  # its pass must not be revoked
                return compute(index)
            with use.lock:
                front = self._keras_front()
                if use.is_probing:
                    batch = compute(index) if front is None else front._ask(index, [index])
                    use.forget()
                    if use.like is None and is_on_tensorflow():
                        use.like = stopping(batch)
                    return batch
                epoch, length = (progress.epoch, progress.version), len(self)  # type: ignore[arg-type]
                if self.is_stream and not use.is_new:
                    index = use.num_asked % length if use.epoch == epoch else 0
                if not progress.start.is_at_start:
                    raise StateError("model.fit begins with a whole epoch, and the state that was loaded is within one")
                order = use.foresee(index, epoch, length)
                if not use.is_new:
                    progress.is_begun = True
                if front is None or order == []:
                    return compute(index)
                return front._ask(index, order)
        except BaseException as raised:
            if isinstance(raised, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise
            error = presentable(raised)
            if isinstance(error.__cause__, RemoteTraceback):  # Keras takes the cause away from what it lets through
                add_note(error, str(error.__cause__))
            if use.like is None or use.is_probing or use.thread == threading.get_ident():
                if error is raised:
                    raise
                raise error from raised
            use.error = error
            use.forget()
            return use.like


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
    return value is not None and value is _keras_class()


replica.stand_ins.append(lambda cls: plain_dataset if is_keras_dataset(cls) else None)


def _plain(value: Any) -> Any:
    """A class in the place of what Keras sees it as."""
    return value.__dict__.get("_plain", value) if isinstance(value, type) else value


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
