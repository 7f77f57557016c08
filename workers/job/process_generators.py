"""Seeds the process's global random generators (``random``, ``numpy.random``, those of frameworks) for each job.

The user's program draws from these generators too. So in the consumer, which is the process of the loop, their states
are restored after each job.
"""

from __future__ import annotations

import ctypes
import functools
import random
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.random  # now: numpy imports it lazily, and a Ctrl-C in an import raises ImportError

from workers import frameworks

from . import context
from .stream import Stream

# random.seed without its Python-level dispatch on the type of the seed: 5 us instead of 8, for every job.
_python_random: Any = random.seed.__self__  # type: ignore[attr-defined]
_python_seed = super(random.Random, _python_random).seed


_Saved: TypeAlias = tuple[tuple[int, int, int], bytes]


class _Words:
    """The words of a generator in memory. Copying them takes less than 1 us; asking for the state takes 10 to 85 us.

    Args:
        position: the number of the word that holds the position, which changes with each draw.
    """

    def __init__(self, address: int, position: int) -> None:
        self._bytes = memoryview((ctypes.c_char * 2500).from_address(address)).cast("B")
        self.view = self._bytes.cast("I")
        self._position = position
        self._kept = self.place, bytes(self._bytes)  # those that were restored last

    @property
    def place(self) -> tuple[int, int, int]:
        """The position and two words, which show together whether anything has been drawn or seeded."""
        view = self.view
        return view[self._position], view[2], view[623]

    def save(self) -> _Saved:
        """Return a copy of the words for :meth:`restore`, with their place."""
        kept, place = self._kept, self.place
        return kept if kept[0] == place else (place, bytes(self._bytes))

    def restore(self, saved: _Saved) -> None:
        self._bytes[:] = saved[1]
        self._kept = saved


def _words_of_python() -> _Words | None:
    """Return the words of ``random``'s state (MT19937: position, 624 words); None if they are not found in memory."""
    start, nbytes = object.__basicsize__, 4 * 625
    if type(_python_random).__mro__[1].__basicsize__ < start + nbytes:
        return None
    words = _Words(id(_python_random) + start, 0)
    told = random.getstate()[1]
    return words if words.view.tolist() == [told[-1], *told[:-1]] else None


_python_words = _words_of_python()


def seed(stream: Stream, epoch: int, index: int) -> None:
    """Seed the global random generators for job ``index`` of ``epoch``, with numbers from ``stream``."""
    number, number_for_numpy = stream.seeds_of_globals(epoch, index)
    _python_seed(number)
    _python_random.gauss_next = None
    np.random.seed(number_for_numpy)
    for seed_framework in frameworks.answering("seed"):
        seed_framework(number)


def save() -> list[Callable[[], None]]:
    """Save the states of the global random generators, and return functions that restore them.
    Always call these functions: for some bit generators, saving alone already changes the state of ``numpy.random``."""
    restore: list[Callable[[], None]] = [_save_python(), _save_numpy()]
    for save_framework in frameworks.answering("save"):
        restore += save_framework()
    return restore


def _save_python() -> Callable[[], None]:
    if _python_words is None:
        return functools.partial(random.setstate, random.getstate())
    return functools.partial(_restore_python, _python_words, _python_words.save(), _python_random.gauss_next)


def _restore_python(memory: _Words, words: _Saved, gaussian: float | None) -> None:
    memory.restore(words)
    _python_random.gauss_next = gaussian


def states() -> list[tuple[str, Any]]:
    """Return [(name, state)] of the global random generators, to find out whether a job has drawn from them."""
    words = hash(random.getstate()) if _python_words is None else _python_words.place
    found = [
        ("random", (words, _python_random.gauss_next)),
        ("numpy.random", _numpy_state()),
    ]
    return found + [each for states_of_framework in frameworks.asked("states") for each in states_of_framework]


def _numpy_state() -> Any:
    users = _known_users()
    return numpy_words() if users is None else users.place


def numpy_words() -> list[tuple[str, bytes]]:
    """Return the state of ``numpy.random`` as [(name of a part, its bytes)], sorted by name."""
    of_numpy: Any = np.random
    state = of_numpy.get_state(legacy=False)["state"]
    return [(name, np.asarray(value).tobytes()) for name, value in sorted(state.items())]


def is_numpy_seeded() -> bool:
    """Return True if the program has called ``np.random.seed`` before the first job in this process.
    A later call is not detected."""
    generator: Any = np.random.mtrand._rand._bit_generator
    known = bool(_users) and _users[0].generator is generator
    return _users[0].is_seeded if known else _is_seeded(generator)


def _is_seeded(generator: Any) -> bool:
    return getattr(generator, "_seed_seq", None) is None  # seeding drops the entropy that it was made from


def reduced(obj: Any) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    """Return how a worker finds a global random generator, or makes one that draws from the same bits as
    ``numpy.random``, in the form of a result of ``__reduce__``; None if ``obj`` is neither.

    A Sequence may hold a global generator, for instance by its method ``np.random.permutation``. In a worker, it then
    holds the worker's global generator. A copy would be seeded like the Sequence's own generators, and so draw other
    numbers.
    """
    if isinstance(obj, (np.random.RandomState, random.Random, np.random.MT19937)) or type(obj).__name__ == "Generator":
        for module, name in (("numpy.random.mtrand", "_rand"), ("random", "_inst")):
            if getattr(sys.modules.get(module), name, None) is obj:
                return getattr, (sys.modules[module], name)
        if (users := _known_users()) is not None:
            bits = users.generator
            if obj is bits:
                return getattr, (np.random.mtrand._rand, "_bit_generator")
            if type(obj) in (np.random.Generator, np.random.RandomState) and obj._bit_generator is bits:
                return type(obj), (bits,)
        place = frameworks.first_answer("place_of_global", obj)
        return place and (getattr, place)
    return None


def _gaussian_of_numpy() -> memoryview | None:
    """Return a view of 16 bytes: the second Gaussian of a pair that ``numpy.random`` has kept, and whether it has one.
    Return None if they are not found in memory. They are the only part of the state besides the bit generator's."""
    mark = 1.2345678901234567e-67
    trial, ours = np.random.RandomState(np.random.MT19937(0)), np.random.mtrand._rand
    state: Any = trial.get_state(legacy=False)
    trial.set_state({**state, "has_gauss": 1, "gauss": mark})
    nbytes = type(trial).__basicsize__
    at = ctypes.string_at(id(trial), nbytes).find(np.float64(mark).tobytes())
    if at < 8 or type(ours) is not type(trial):
        return None
    flag = (ctypes.c_int32 * 1).from_address(id(trial) + at - 8)
    had = flag[0]
    trial.set_state({**state, "has_gauss": 0, "gauss": mark})
    if (had, flag[0]) != (1, 0):
        return None
    return memoryview((ctypes.c_char * 16).from_address(id(ours) + at - 8)).cast("B")


class _Users:
    """The program's own bit generator of ``numpy.random`` (an MT19937), saved before each job and restored after it."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator
        self.is_seeded = _is_seeded(generator)  # now, before jobs seed it
        self.words = _Words(generator.ctypes.state_address, 624)
        self._gaussian = _gaussian_of_numpy()
        told = generator.state["state"]
        is_there = self.words.view.tolist() == [*told["key"].tolist(), told["pos"]]
        self.is_known = is_there and self._gaussian is not None

    @property
    def place(self) -> Any:
        """What shows whether anything has been drawn."""
        return self.words.place, self.gaussian

    @property
    def gaussian(self) -> bytes:
        return bytes(self._gaussian or b"")

    def save(self) -> Callable[[], None]:
        """Return a function that restores the present state of ``numpy.random``."""
        return functools.partial(self._restore, self.words.save(), self.gaussian)

    def _restore(self, words: _Saved, gaussian: bytes) -> None:
        if np.random.mtrand._rand._bit_generator is not self.generator:  # the job has replaced it
            of_numpy: Any = np.random
            of_numpy.set_bit_generator(self.generator)
        self.words.restore(words)
        assert self._gaussian is not None
        self._gaussian[:] = gaussian


_users: list[_Users] = []  # at most one: the last one seen
_ours = np.random.MT19937(0)


def _users_of(generator: Any) -> _Users:
    if not _users or _users[0].generator is not generator:
        _users[:] = [_Users(generator)]
    return _users[0]


def _known_users() -> _Users | None:
    """Return the program's bit generator of ``numpy.random`` if jobs draw from it, as its memory is known."""
    generator: Any = np.random.mtrand._rand._bit_generator
    users = _users_of(generator) if type(generator) is np.random.MT19937 else None
    return users if users is not None and users.is_known else None


def _save_numpy() -> Callable[[], None]:
    users = _known_users()
    return _save_any() if users is None else users.save()


def _save_any() -> Callable[[], None]:
    """Return a function that restores the present state of ``numpy.random``, for any bit generator. Takes 100 us."""
    of_numpy: Any = np.random
    state = of_numpy.get_state(legacy=False)  # 85 us, needed only for the second Gaussian of a pair
    if not hasattr(of_numpy, "set_bit_generator"):  # numpy < 1.24
        return functools.partial(of_numpy.set_state, state)
    users = of_numpy.get_bit_generator()
    # Creating a bit generator takes 80 us, so jobs share ours. Only a job within a job needs another one.
    of_numpy.set_bit_generator(_ours if users is not _ours else np.random.MT19937(0))
    return functools.partial(_restore_numpy, users, state if state["has_gauss"] else None)


def _restore_numpy(users: Any, state: Any) -> None:
    of_numpy: Any = np.random
    of_numpy.set_bit_generator(users)
    if state is not None:
        of_numpy.set_state(state)


def look_after_frameworks() -> None:
    """Make the loaded frameworks (TensorFlow, albumentations) draw from the generators of the current job."""
    for look_after in frameworks.answering("look_after"):
        look_after(_Current)


class _Current:
    """The functions that the modules of ``frameworks`` call to get the current job's random generators."""

    current_stream = staticmethod(context.current_stream)
    is_in_worker_process = staticmethod(context.is_in_worker_process)

    @staticmethod
    def numpy_generator() -> Any:
        """Return the current job's numpy generator, as ``current_rng()`` does; None outside of a job."""
        stream = context.current.stream
        context.ask("a transform's generator")
        return None if stream is None else stream.generator()

    @staticmethod
    def python_generator() -> Any:
        stream = context.current.stream
        context.ask("a transform's generator")
        return None if stream is None else stream.python()
