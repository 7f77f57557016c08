"""Which attributes of a task have changed since its workers got it, so that a replica keeps all others.

What jobs keep in the objects of their replica (caches, open files) stays when a hook or the loop changes something else
there. The workers load the whole task anew, and take from it what has changed: :func:`merged`.

Looked at are the task, the sequence that its jobs are made of, and from there on the objects of the user's own classes
that are attributes of each other, if they are pickled by their attributes alone. Anything else (a list, an object with
``__setstate__``) is replaced as a whole if its pickle has changed.
"""

from __future__ import annotations

import copyreg
import time
import weakref
from typing import Any, NamedTuple

from workers.job.installed import is_installed

from .replica import ABSENT, state_of
from .watch import Seen, Watch

_PATIENCE_S = 0.25  # for a look at all attributes; else all counts as changed
_MAX_DEPTH = 8
_OWN = "workers", "sampler"


class Changed(NamedTuple):
    """What a replica has to take of an object: Changed({"level": None, "source": Changed({}, [])}, ["old"])."""

    names: dict[str, Any]  # {attribute: None, if it is replaced as a whole, or what has changed in it}
    gone: list[str]  # attributes that there are no more


class _Object(NamedTuple):
    """An object, as it was seen last."""

    of: weakref.ref[Any]
    parts: dict[str, _Object | Seen]


class Attributes:
    """Looks at the attributes of a task that ``watch`` has just looked at as a whole. Runs in: consumer."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._last: _Object | None = None  # None: it is not known by attributes
        self._now: _Object | None = None

    def changed(self, task: Any, is_exact: bool, states: dict[int, dict[str, Any]]) -> Changed | None:
        """What has changed since the last look that was followed by :meth:`commit`; None: all of it may have.

        Args:
            is_exact, states: see :meth:`workers.process.watch.Watch.has_changed`.
        """
        self._now = self._look(task, vars(task), is_exact, states, time.monotonic() + _PATIENCE_S, set())
        # The task itself is made anew for each look.
        return None if self._last is None or self._now is None else _difference(self._last.parts, self._now.parts)

    def commit(self) -> None:
        """The workers have what was seen."""
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
    """The attributes that ``value`` is pickled by, if by them alone and in the usual way; else None."""
    cls: Any = type(value)
    is_plain = (
        cls.__new__ is object.__new__
        and not hasattr(cls, "__setstate__")
        and cls.__reduce__ is object.__reduce__
        and (cls.__reduce_ex__ is object.__reduce_ex__ or hasattr(cls.__reduce_ex__, "is_by_attributes"))
        and cls not in copyreg.dispatch_table
        and (not is_installed(cls.__module__) or cls.__module__.partition(".")[0] in _OWN)
    )
    if not is_plain or not hasattr(value, "__dict__") or not hasattr(value, "__weakref__"):
        return None
    state = state_of(value)
    return state if state or not vars(value) else None  # none: it has slots too


def _difference(last: dict[str, _Object | Seen], now: dict[str, _Object | Seen]) -> Changed:
    names: dict[str, Any] = {}
    for name, part in now.items():
        before = last.get(name)
        if isinstance(part, _Object):
            is_same = isinstance(before, _Object) and before.of() is part.of() is not None
            inner = _difference(before.parts, part.parts) if is_same else None  # type: ignore[union-attr]
            if inner is None or inner.names or inner.gone:
                names[name] = inner
        elif not isinstance(before, Seen) or not part.is_same(before):
            names[name] = None
    return Changed(names, [name for name in last if name not in now])


def merged(before: Any, now: Any, changed: Changed) -> Any:
    """The task of a replica, with the objects of ``before`` where they have not changed. Runs in: worker."""
    for name in ("source", "functions"):
        if name not in changed.names:
            setattr(now, name, getattr(before, name))
        elif changed.names[name] is not None:
            setattr(now, name, _taken(getattr(before, name), getattr(now, name), changed.names[name]))
    now.take_over(before)
    return now


def _taken(before: Any, now: Any, changed: Changed) -> Any:
    """``before`` with what has changed in ``now``."""
    if type(before) is not type(now):  # a job has put something else there
        return now
    there, new = vars(before), vars(now)
    for name, inner in changed.names.items():
        if name in new:
            there[name] = new[name] if inner is None or name not in there else _taken(there[name], new[name], inner)
    for name in changed.gone:
        there.pop(name, None)
    return before
