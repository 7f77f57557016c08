"""Pickles by cloudpickle, which sends what ``__main__`` or a notebook defines by value, slots of classes included."""

from __future__ import annotations

import io
import types
from typing import Any

import cloudpickle


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's own makes a class without its slots, and is at a loss for those with private names."""

    def reducer_override(self, obj: Any) -> Any:
        reduction = super().reducer_override(obj)
        if isinstance(obj, type) and "__slots__" in vars(obj) and isinstance(reduction, tuple):
            return _with_slots(obj, reduction)
        return reduction


def _with_slots(kind: type, reduction: tuple[Any, ...]) -> tuple[Any, ...]:
    """The reduction of a class that goes by value, whose slots are made with it."""
    make, arguments, state, *others = reduction
    if make.__name__ != "_make_skeleton_class" or issubclass(kind, tuple):  # an enum; a NamedTuple, which makes its own
        return reduction
    made_of, name, bases, names, *ids = arguments
    slots: Any = vars(kind)["__slots__"]
    slots = slots if isinstance(slots, (str, dict)) else tuple(slots)
    attributes, more = state
    attributes = {
        key: value
        for key, value in attributes.items()
        if key != "__slots__" and not isinstance(value, types.MemberDescriptorType)
    }
    return make, (made_of, name, bases, {**names, "__slots__": slots}, *ids), (attributes, more), *others


def pickled_by_value(value: Any) -> bytes:
    """``value`` as cloudpickle pickles it."""
    with io.BytesIO() as file:
        Pickler(file, protocol=5).dump(value)
        return file.getvalue()
