"""How objects show themselves: in a line, as a table in a notebook, and in what completion offers.

Nothing here may raise, or take long, or begin anything: it is asked for by debuggers too, of objects that are half
made. So what cannot be told is left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from workers.errors import ClosedError

#: Names that only Keras, trw or the engine ask for. They work, but completion does not offer them; unless the user's
#: own class has them, or an option goes by that name.
NOT_OFFERED = frozenset(
    {
        *("max_queue_size", "num_batches", "use_multiprocessing", "workers"),  # of keras.utils.PyDataset
        *("fill_queue", "has_background_jobs", "initializer", "next_item", "queue_timeout"),  # of trw
        *("is_stream", "items_of_job"),  # of the engine
    }
)
_OPTIONS = "max_queue_size"
_OURS = "workers", "sampler", "keras"


class Fact(NamedTuple):
    """Something to be told: Fact("batches", "1,000", "1,000 batches")."""

    name: str
    value: str
    text: str


def count(number: int, one: str, many: str) -> Fact:
    """So many of something."""
    return Fact(many, f"{number:,}", f"{number:,} {one if number == 1 else many}")


def named(name: str, value: Any) -> Fact:
    """Something that has a value."""
    return Fact(name, str(value), f"{name} {value}")


def state(text: str) -> Fact:
    """What it is in."""
    return Fact("state", text, text)


def tried(ask: Callable[[], Any]) -> Any:
    """``ask()``; None: that cannot be told."""
    try:
        return ask()
    except Exception:  # whatever the user's class, or one that is half made, raises
        return None


class Looks:
    """Shows what :meth:`_shown_facts` tells. A class of the user's keeps its own ``__repr__``, or its bases'."""

    def _shown_name(self) -> str:
        return type(self).__name__

    def _shown_facts(self) -> Iterable[Fact | None]:
        """What is told of it; None is left out."""
        return ()

    def __repr__(self) -> str:
        own = _own_repr(type(self))
        if own is not None:
            return str(own(self))
        name, facts = _told(self)
        return f"<{name}: {', '.join(fact.text for fact in facts)}>" if facts else f"<{name}>"

    def _repr_html_(self) -> str | None:
        """A table, in a notebook; None: as its own ``__repr__`` has it."""
        if type(self).__repr__ is not Looks.__repr__ or _own_repr(type(self)) is not None:
            return None
        from html import escape

        name, facts = _told(self)
        rows = "".join(f"<tr><td>{escape(fact.name)}</td><td>{escape(fact.value)}</td></tr>" for fact in facts)
        return f'<table><thead><tr><th colspan="2">{escape(name)}</th></tr></thead><tbody>{rows}</tbody></table>'

    def __dir__(self) -> list[str]:
        return sorted(name for name in set(super().__dir__()) if name not in NOT_OFFERED or _is_users(self, name))


class SequenceLooks(Looks):
    """How a sequence shows itself: how long it is, and where it stands."""

    #: What an item of it is called.
    _item_names: tuple[str, str] = ("batch", "batches")

    def _shown_facts(self: Any) -> Iterable[Fact | None]:
        one, many = self._item_names
        length, epoch, number = (tried(ask) for ask in (self._known_length, lambda: self.epoch, self._num_read))
        yield None if length is None else count(length, one, many)
        yield from self._own_facts()
        yield None if epoch is None else named("epoch", epoch)
        yield named(one, f"{number:,}") if number else None
        if self._is_shown_closed():
            yield state("closed")
        else:
            yield from self._working_facts()

    def _own_facts(self) -> Iterable[Fact | None]:
        """What is told of one of its kind."""
        return ()

    def _working_facts(self) -> Iterable[Fact | None]:
        """What is told of its workers."""
        return ()

    def _known_length(self: Any) -> int | None:
        return len(self) if self._is_length_at_hand() else None

    def _num_read(self: Any) -> int:
        """How many of its items were delivered in this epoch."""
        return int(self._clock.position.num_delivered)

    def _is_shown_closed(self: Any) -> bool:
        try:
            self._check_open()
        except ClosedError:
            return True
        return False


def _told(of: Looks) -> tuple[str, list[Fact]]:
    facts: list[Fact] = []
    with contextlib.suppress(Exception):  # see tried
        for fact in of._shown_facts():
            facts += [] if fact is None else [fact]
    return tried(of._shown_name) or type(of).__name__, facts


def _own_repr(cls: type) -> Callable[[Any], str] | None:
    """The ``__repr__`` of a base of the user's class, which ours would hide."""
    behind = cls.__mro__[cls.__mro__.index(Looks) + 1 : -1]
    return next((each.__dict__["__repr__"] for each in behind if "__repr__" in each.__dict__), None)


def _is_users(of: Any, name: str) -> bool:
    """Whether the user has given it this name: in a class, or as an attribute."""
    if name in vars(of) and (name == _OPTIONS or not _is_ours(type(of))):
        return True
    return any(name in each.__dict__ and not _is_ours(each) for each in type(of).__mro__)


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] in _OURS
