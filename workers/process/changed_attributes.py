"""Finds which attributes of a task have changed since it was sent to the workers, so that workers replace only these.

A task is the user's sequence and the functions applied to its batches; a replica is a worker's copy of the task. Jobs
may keep caches or open files in the objects of their replica. These must survive when a hook (on_epoch_begin,
on_epoch_end) or the loop changes something else. So a worker loads the whole task again, but takes only the changed
attributes from it (:func:`merged`).

A hook may empty a cache that only jobs fill. In the consumer this cache is always empty, so a comparison shows no
change. Therefore attributes mentioned in hooks, or in the setter of a changed attribute, always count as changed.

Attributes are compared one by one in the task, in its sequence, and, level by level, in attributes that are objects of
the user's own classes, if pickle sends these by their attributes alone. Any other value (a list, an object with
``__setstate__``) is replaced as a whole if its pickle has changed.
"""

from __future__ import annotations

import copyreg
import functools
import inspect
import time
import types
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

from workers.job.installed import is_installed
from workers.job.walk import names_in

from .change_detector import ChangeDetector, Seen
from .replica import ABSENT
from .unpicklable import state_of

_PATIENCE_S = 0.25  # for the check of all attributes; if it takes longer, all of them count as changed
_MAX_DEPTH = 8
_OWN = "workers", "sampler"
HOOKS = "on_epoch_begin", "on_epoch_end"


class Changed(NamedTuple):
    """The changes in one object of a task, which the workers repeat in their replicas (copies of the task).

    For example: Changed(names={"level": None, "source": Changed(names={"size": None}, gone=[])}, gone=["old"]).
    """

    names: dict[str, Any]  # {attribute: None if it is replaced as a whole, else what has changed in it}
    gone: list[str]  # attributes that no longer exist


class _Object(NamedTuple):
    """A snapshot of an object that is compared attribute by attribute. It holds a snapshot of each attribute."""

    of: weakref.ref[Any]
    parts: dict[str, _Object | Seen]


class Attributes:
    """The attributes of one task, compared one by one between epochs. Runs in: consumer.

    ``watch`` takes the snapshots. Before each call of :meth:`changed`, it must have checked the whole task.
    """

    def __init__(self, watch: ChangeDetector) -> None:
        self._watch = watch
        self._last: _Object | None = None  # None: the attributes are unknown
        self._now: _Object | None = None

    def changed(self, task: Any, is_exact: bool, states: dict[int, dict[str, Any]]) -> Changed | None:
        """Return which attributes of ``task`` have changed since the last :meth:`commit`; None if any may have changed.

        Args:
            is_exact, states: see :meth:`workers.process.change_detector.ChangeDetector.has_changed`.
        """
        self._now = self._look(task, vars(task), is_exact, states, time.monotonic() + _PATIENCE_S, set())
        # The task itself is a new object each time, so its identity is not compared.
        if self._last is None or self._now is None:
            return None
        names = _names_in(_functions_of(frozenset(_classes(self._now)), frozenset(HOOKS)))
        return _difference(self._last, self._now, names)

    def commit(self) -> None:
        """Make later calls compare with the task that :meth:`changed` last saw, because the workers have it now."""
        self._last = self._now

    def _look(
        self, of: Any, parts: dict[str, Any], is_exact: bool, states: Any, end_s: float, above: set[int]
    ) -> _Object | None:
        found: dict[str, _Object | Seen] = {}
        changed = states.get(id(of), {})
        for name, own in parts.items():
            value = changed.get(name, own)
            if value is ABSENT or name == "history":
                continue
            inner = None if id(value) in above or len(above) > _MAX_DEPTH else _attributes_of(value)
            seen: _Object | Seen | None
            if inner is None:
                seen = self._watch.look_at(value, is_exact, states)
            else:
                seen = self._look(value, inner, is_exact, states, end_s, above | {id(value)})
            if seen is None or time.monotonic() > end_s:
                return None
            found[name] = seen
        return _Object(weakref.ref(of), found)


def _attributes_of(value: Any) -> dict[str, Any] | None:
    """Return {name: value} of an object's attributes; None if workers cannot replace them one by one in their copy.

    Workers can do so if its class is the user's or this package's, and it is pickled by its attributes alone.
    """
    cls: Any = type(value)
    is_plain = (
        cls.__new__ is object.__new__
        and not hasattr(cls, "__setstate__")
        and cls.__reduce__ is object.__reduce__
        and (cls.__reduce_ex__ is object.__reduce_ex__ or hasattr(cls.__reduce_ex__, "is_by_attributes"))
        and cls not in copyreg.dispatch_table
        and (not is_installed(cls.__module__) or cls.__module__.partition(".")[0] in _OWN)
    )
    has_slots = bool(copyreg._slotnames(cls))  # type: ignore[attr-defined]
    if not is_plain or has_slots or not hasattr(value, "__dict__") or not hasattr(value, "__weakref__"):
        return None
    return state_of(value) or (None if vars(value) else {})


def _difference(last: _Object, now: _Object, named: frozenset[str]) -> Changed:
    """Return what has changed between two snapshots of an object.

    Attributes in ``named``, the names that hooks mention, always count as changed, except objects that are themselves
    compared attribute by attribute.
    """
    names: dict[str, Any] = {}
    for name, part in now.parts.items():
        before = last.parts.get(name)
        if isinstance(part, _Object):
            is_same = isinstance(before, _Object) and before.of() is part.of() is not None
            inner = _difference(before, part, named) if is_same else None  # type: ignore[arg-type]
            if inner is None or inner.names or inner.gone:
                names[name] = inner
        elif name in named or not isinstance(before, Seen) or not part.is_same(before):
            names[name] = None
    of = now.of()
    for name in () if of is None else _set_with(of.__class__, frozenset(names)) - names.keys():
        if name in now.parts:
            names[name] = None
    return Changed(names, [name for name in last.parts if name not in now.parts])


def _classes(of: _Object) -> Iterator[type]:
    """Yield the class of each object that snapshot ``of`` compares attribute by attribute, the outermost one first."""
    if (value := of.of()) is not None:
        yield type(value)
    for part in of.parts.values():
        if isinstance(part, _Object):
            yield from _classes(part)


@functools.lru_cache(64)
def _functions_of(classes: frozenset[type], names: frozenset[str]) -> tuple[types.CodeType, ...]:
    """Return the code of the methods and properties ``names`` of ``classes``, and of others that this code mentions."""
    found: dict[types.CodeType, None] = {}
    left = list(names)
    seen = set(left)
    while left:
        name = left.pop()
        for cls in classes:
            for code in _code_of(inspect.getattr_static(cls, name, None)):
                found[code] = None
                left += _names_in((code,)) - seen
                seen |= _names_in((code,))
    return tuple(found)


def _code_of(member: Any) -> list[types.CodeType]:
    of = (member.fget, member.fset) if isinstance(member, property) else (getattr(member, "__func__", member),)
    functions = [each for each in of if isinstance(each, types.FunctionType) and not is_installed(each.__module__)]
    return [each.__code__ for each in functions]


def _names_in(code: tuple[types.CodeType, ...]) -> frozenset[str]:
    """Return the names of all attributes and globals that these code objects mention."""
    return frozenset(name for each in code for name in names_in(each))


@functools.lru_cache(64)
def _set_with(cls: type, names: frozenset[str]) -> frozenset[str]:
    """Return the attributes of ``cls`` that the setter of a property may have set together with one of ``names``.

    If the code of a settable property, or of methods that it calls, mentions one of ``names``, the result includes all
    names that this code mentions.
    """
    found: frozenset[str] = frozenset()
    members = {name: member for base in reversed(cls.__mro__) for name, member in vars(base).items()}
    for name, member in members.items():
        if isinstance(member, property) and member.fset is not None:
            named = _names_in(_functions_of(frozenset({cls}), frozenset({name})))
            found |= named if named & names else frozenset()
    return found


def merged(before: Any, now: Any, changed: Changed) -> Any:
    """Return a worker's next task: ``now``, but with the objects of ``before`` where nothing has changed.

    Args:
        before: the task that the worker has used so far.
        now: the whole task as just received.
        changed: the changes between the two, which the consumer has found.

    Runs in: worker.
    """
    for name in ("source", "functions"):
        if name not in changed.names:
            setattr(now, name, getattr(before, name))
        elif changed.names[name] is not None:
            setattr(now, name, _taken(getattr(before, name), getattr(now, name), changed.names[name]))
    now.take_over(before)
    return now


def _taken(before: Any, now: Any, changed: Changed) -> Any:
    """Set the changed attributes of ``now`` in ``before`` and return ``before``; return ``now`` if the types differ."""
    if type(before) is not type(now):  # a job has replaced the object
        return now
    there, new = vars(before), vars(now)
    for name, inner in changed.names.items():
        if name in new:
            there[name] = new[name] if inner is None or name not in there else _taken(there[name], new[name], inner)
    for name in changed.gone:
        there.pop(name, None)
    return before
