"""What makes a Sequence a ``keras.utils.PyDataset`` wherever Keras is loaded."""

from __future__ import annotations

import copyreg
import sys
import types
from typing import Any

from workers.process import replica

from . import adapter
from .reading import ENDLESS


def keras_class() -> type | None:
    """``keras.utils.PyDataset``, where Keras is loaded."""
    dataset = getattr(getattr(sys.modules.get("keras"), "utils", None), "PyDataset", None)
    return dataset if isinstance(dataset, type) else None


def is_keras_dataset(value: Any) -> bool:
    """Whether ``value`` is the class PyDataset itself."""
    return value is not None and value is keras_class()


class _Quiet:
    """In front of a class, keeps its ``__init_subclass__`` from being called for what is no subclass to its author."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        pass


class KerasDataset:
    """``isinstance(sequence, keras.utils.PyDataset)`` is true, though its type stays what it is.

    Pickled, or in a process without Keras, it is nothing else. What Keras does with it then: see ``adapter``.
    """

    #: Attributes that a copy makes anew: where it stands, its workers, what was found in it, and what Keras sees of it.
    _not_copied: tuple[str, ...] = ("_own_clock", "_fit", "_held", "_seen_as_dataset")

    def _class(self) -> type:
        dataset, own = keras_class(), type(self)
        if dataset is None:
            return own
        adapter.install()
        if issubclass(own, dataset):
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
        if rest and isinstance(rest[0], dict):
            rest[0] = {name: value for name, value in rest[0].items() if name not in self._not_copied}
        return (_plain(function), tuple(map(_plain, arguments)), *rest)

    __reduce_ex__.is_by_attributes = True  # type: ignore[attr-defined]

    # For a Keras that is not known, which reads a sequence by itself.
    workers = 1
    use_multiprocessing = False
    max_queue_size: Any = 10

    @property
    def num_batches(self) -> int | None:
        """Its length, by the name that Keras has for it; None: as many as come, which may be without an end."""
        return self._length_for_fit()

    def _length_for_fit(self) -> int | None:
        length = len(self)  # type: ignore[arg-type]
        return None if length >= ENDLESS else length

    def _length_by_num_batches(self) -> int | None:
        """What ``num_batches`` says, if a subclass defines it; None: none does."""
        of = next(each for each in type(self).__mro__ if "num_batches" in each.__dict__ and not is_keras_dataset(each))
        if of is KerasDataset:
            return None
        number = self.num_batches
        return ENDLESS if number is None else number

    def _close_for_keras(self) -> None:
        """End the workers that ``model.fit`` was given."""
        front = self.__dict__.get("_fit")
        if front is not None:
            front.close()


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


replica.stand_ins.append(lambda cls: plain_dataset if is_keras_dataset(cls) else None)


def _plain(value: Any) -> Any:
    """A class in the place of what Keras sees it as."""
    return value.__dict__.get("_plain", value) if isinstance(value, type) else value


def _new(cls: Any, *arguments: Any) -> Any:
    return cls.__new__(cls, *arguments)
