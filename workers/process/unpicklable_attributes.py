"""Pickles a Sequence even if some attributes have become unpicklable, such as a file that was opened by ``seq[0]``.

The workers get, or keep, the earlier value of such an attribute. They get the present values of all other attributes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

from workers.errors import NotPicklableError
from workers.job.data_only import items_of

from . import replica
from .replica import ABSENT, Parcel, Pickled, is_picklable
from .unpicklable import Step, state_of, steps

logger = logging.getLogger("workers")

_SEARCH_S = 0.8
_MAX_REMEMBERED = 8
_SMALL = (type(None), bool, int, float, str)  # usual types of an attribute before a job assigns an open file to it


class _Attribute(NamedTuple):
    owner: Any
    name: str
    before: Any  # its value in the workers; ABSENT if it does not exist there


class _Before(NamedTuple):
    """The attributes of an object before any job ran in this process. Only small values are kept, to save memory."""

    owner: weakref.ref[Any]
    small: dict[str, Any]  # {attribute: value}, e.g. {"file": None}
    others: set[str]  # the names of the other attributes


class UnpicklableAttributes:
    """The attributes of a task (a sequence and its functions) that can no longer be pickled.

    The workers use the earlier values of these attributes. Runs in: consumer.
    """

    def __init__(self) -> None:
        self._found: list[_Attribute] = []
        self._told: set[str] = set()
        self._before: list[_Before] = []

    def remember(self, source: Any) -> None:
        """Record the attributes of a sequence and of those that it wraps, before a job in this process changes them."""
        while hasattr(source, "__dict__") and len(self._before) < _MAX_REMEMBERED:
            with contextlib.suppress(TypeError):  # no weak reference to it is possible
                attributes = vars(source)
                small = {name: value for name, value in attributes.items() if isinstance(value, _SMALL)}
                self._before.append(_Before(weakref.ref(source), small, attributes.keys() - small.keys()))
            source = vars(source).get("source_split")

    def first(self, task: Any, name: str) -> Pickled:
        """Pickle ``task`` for new workers, with earlier values for attributes made unpicklable by jobs in this process.

        Args:
            name: the name of ``task`` in errors, e.g. "the sequence".

        Raises:
            NotPicklableError: something else in ``task`` is unpicklable.
        """
        try:
            return Pickled(task, name)
        except NotPicklableError as error:
            for reference, small, others in self._before:
                owner = reference()
                for attribute, value in (state_of(owner) or {}).items():
                    was = small.get(attribute, ABSENT)
                    if attribute not in others and was is not value and not is_picklable(value):
                        self._found.append(_Attribute(owner, attribute, was))
                        self._tell(self._found[-1], error)
            if not self._found:
                raise
        return Pickled(task, name, self.states())

    def states(self) -> dict[int, dict[str, Any]]:
        """Return replacements for attributes still unpicklable, {id of an object: {attribute: value to send}}."""
        self._found = [each for each in self._found if not is_picklable((state_of(each.owner) or {}).get(each.name))]
        states: dict[int, dict[str, Any]] = {}
        for owner, name, before in self._found:
            states.setdefault(id(owner), {})[name] = before
        return states

    def pickled(self, task: Any, name: str, parcel: Parcel) -> Pickled:
        """Pickle ``task`` again. Attributes that have become unpicklable since get their earlier values.

        Args:
            name: the name of ``task`` in errors, e.g. "the sequence".
            parcel: the earlier pickled task, which the workers have. The earlier values are taken from it.

        Raises:
            NotPicklableError: something else in ``task`` is unpicklable.
        """
        while True:
            states = self.states()
            try:
                return Pickled(task, name, states)
            except NotPicklableError as error:
                try:
                    now = replica.load(parcel.message(), [os.dup(file) for file in parcel.descriptors])
                    found = _find(task, now, states)
                except Exception:  # the user's classes may fail when they are loaded here
                    found = None
                if found is None or found.name in states.get(id(found.owner), {}):
                    raise
                self._tell(found, error)
                self._found.append(found)

    def _tell(self, found: _Attribute, error: NotPicklableError) -> None:
        what = f"{type(found.owner).__name__}.{found.name}"
        if what not in self._told:
            self._told.add(what)
            logger.warning(
                "%s can no longer be sent to worker processes (%s), so they use its earlier value. If it is a file or "
                "a connection that is opened at first use, leave it out of what is sent: "
                "def __getstate__(self): return {**self.__dict__, %r: None}",
                what,
                str(error.__cause__),  # as text, since the traceback of the error holds all these objects
                found.name,
            )


def _find(task: Any, before: Any, states: dict[int, dict[str, Any]]) -> _Attribute | None:
    """Find the attribute that has made ``task`` unpicklable; None if it was not found.

    The search goes inwards along unpicklable parts, to the first whose type is another than in ``before``, if any. This
    part is the attribute, or an item in it. A sequence or function is not returned: workers must not use an old one.

    Args:
        before: the task as the workers have it.
        states: replacements for attributes found earlier, {id of an object: {attribute: value to send}}.
    """
    deadline_s = time.monotonic() + _SEARCH_S
    last, value, seen = None, task, set()
    while time.monotonic() < deadline_s:
        seen.add(id(value))
        new = (step for step in _steps(value, states) if id(step.part) not in seen)
        bad = next((step for step in new if not is_picklable(step.part, states)), None)
        if bad is None:
            return last
        if bad.kind == "attribute":
            before = (state_of(before) or {}).get(bad.key, ABSENT)
            last = None if value is task or bad.key == "source_split" else _Attribute(value, bad.key, before)
        else:
            before = _item(before, bad.key)
        value = bad.part
        if type(before).__qualname__ != type(value).__qualname__:
            return last
    return None


def _steps(value: Any, states: dict[int, dict[str, Any]]) -> Iterator[Step]:
    """Return the steps to the items and attributes of ``value``, except attributes that ``states`` replaces already."""
    kept = states.get(id(value), {})
    return (step for step in steps(value) if step.kind == "item" or (step.kind == "attribute" and step.key not in kept))


def _item(container: Any, key: Any) -> Any:
    if isinstance(container, dict):
        return dict.get(container, key, ABSENT)
    found = items_of(container, key, key + 1) if isinstance(container, (list, tuple)) else []
    return found[0] if found else ABSENT
