"""Defines the ``repr`` of our objects, their table in a notebook, and the names that completion offers.

These functions must not raise, take long or start anything, because debuggers call them too, even on half-initialised
objects. A fact that cannot be determined is left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from workers.errors import ClosedError
from workers.frameworks import keras

#: Names that only Keras, trw or the engine use. They work, but completion does not offer them, unless the user's own
#: class defines them or an option has that name.
NOT_OFFERED = frozenset(
    {
        *("max_queue_size", "num_batches", "use_multiprocessing", "workers"),  # of keras.utils.PyDataset
        *("fill_queue", "has_background_jobs", "initializer", "next_item", "queue_timeout"),  # of trw
        "is_stream",  # of the engine
    }
)
_OPTIONS = "max_queue_size"
_OURS = "workers", "sampler", keras.PACKAGE


class DisplayedFact(NamedTuple):
    """A fact about an object, as a table row and as text, e.g. DisplayedFact("batches", "1,000", "1,000 batches")."""

    name: str
    value: str
    text: str


def count(number: int, one: str, many: str) -> DisplayedFact:
    """Return the fact that an object has ``number`` of something: count(2, "batch", "batches") reads "2 batches"."""
    return DisplayedFact(many, f"{number:,}", f"{number:,} {one if number == 1 else many}")


def named(name: str, value: Any) -> DisplayedFact:
    """Return the fact that ``name`` has ``value``: named("epoch", 3) reads "epoch 3"."""
    return DisplayedFact(name, str(value), f"{name} {value}")


def state(text: str) -> DisplayedFact:
    """Return the fact that an object is in the state ``text``, such as "closed"."""
    return DisplayedFact("state", text, text)


def tried(ask: Callable[[], Any]) -> Any:
    """Return ``ask()``, or None if it raises an exception."""
    try:
        return ask()
    except Exception:  # a user's class or a half-initialised object may raise anything
        return None


def shown(of: Any) -> str:
    """Return ``repr(of)``: that of a user's class if it defines one, else the class name and the facts about ``of``."""
    own = _own_repr(type(of))
    if own is not None:
        return str(own(of))
    name, facts = _told(of)
    return f"<{name}: {', '.join(fact.text for fact in facts)}>" if facts else f"<{name}>"


def shown_as_table(of: Any) -> str | None:
    """Return the facts about ``of`` as an HTML table for a notebook; None if a user's class defines ``__repr__``."""
    cls: Any = type(of)
    if cls.__repr__ is not shown or _own_repr(cls) is not None:
        return None
    from html import escape

    name, facts = _told(of)
    rows = "".join(f"<tr><td>{escape(fact.name)}</td><td>{escape(fact.value)}</td></tr>" for fact in facts)
    return f'<table><thead><tr><th colspan="2">{escape(name)}</th></tr></thead><tbody>{rows}</tbody></table>'


def offered(of: Any) -> list[str]:
    """Return the attributes of ``of`` that completion (the Tab key) offers: all but ours in ``NOT_OFFERED``."""
    return sorted(name for name in set(object.__dir__(of)) if name not in NOT_OFFERED or _is_users(of, name))


class Display:
    """A base class whose ``repr`` and notebook table show the facts that :meth:`_shown_facts` yields."""

    def _shown_facts(self) -> Iterable[DisplayedFact | None]:
        """Yield the facts about this object for ``repr`` and notebooks; a fact of None is left out."""
        return ()

    __repr__, _repr_html_, __dir__ = shown, shown_as_table, offered


def facts_of_sequence(of: Any) -> Iterable[DisplayedFact | None]:
    """Yield the facts about the sequence ``of``: length, epoch, position, workers, ... A fact of None is left out."""
    one, many = of._item_names
    length, epoch = tried(lambda: len(of) if of._is_length_at_hand() else None), tried(lambda: of.epoch)
    number = tried(lambda: int(of._clock.position.num_delivered))
    yield None if length is None else count(length, one, many)
    yield from of._own_facts()
    yield None if epoch is None else named("epoch", epoch)
    yield named(one, f"{number:,}") if number else None
    if _is_shown_closed(of):
        yield state("closed")
    elif (facts_of_workers := getattr(type(of._live), "facts", None)) is not None:
        yield from facts_of_workers(of._live)


def _is_shown_closed(of: Any) -> bool:
    try:
        of._check_open()
    except ClosedError:
        return True
    return False


def _name_of(of: Any) -> str:
    """Return the class names of ``of`` and its sources, e.g. "SequenceMap of SequenceBatch of Images"."""
    names = [type(of).__name__]
    while _is_ours(type(of)) and (of := vars(of).get("source_split")) is not None:
        names.append(type(of).__name__)
    return " of ".join(names)


def _told(of: Any) -> tuple[str, list[DisplayedFact]]:
    facts: list[DisplayedFact] = []
    with contextlib.suppress(Exception):  # for the same reason as in tried
        for fact in of._shown_facts() if hasattr(of, "_shown_facts") else facts_of_sequence(of):
            facts += [] if fact is None else [fact]
    return tried(lambda: _name_of(of)) or type(of).__name__, facts


def _own_repr(cls: type) -> Callable[[Any], str] | None:
    """Return a user's ``__repr__`` that ours hides, because ours comes earlier in the MRO of ``cls``; else None."""
    reprs: list[Any] = [each.__dict__["__repr__"] for each in cls.__mro__[:-1] if "__repr__" in each.__dict__]
    return next((each for each in reprs[reprs.index(shown) :] if each is not shown), None)


def _is_users(of: Any, name: str) -> bool:
    """Return True if the user, not this package, has set ``name`` on ``of``, or defined it in a class of ``of``."""
    if name in vars(of) and (name == _OPTIONS or not _is_ours(type(of))):
        return True
    return any(name in each.__dict__ and not _is_ours(each) for each in type(of).__mro__)


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] in _OURS
