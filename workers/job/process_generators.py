"""Seeds the process's global random generators (``random``, ``numpy.random``, those of frameworks) for each job.

The user's program draws from these generators too. So in the consumer, which is the process of the loop, their states
are restored after each job.
"""

from __future__ import annotations

import ctypes
import functools
import random
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.random  # now: numpy imports it lazily, and a Ctrl-C in an import raises ImportError

from workers import frameworks

from . import context
from .stream import Stream

# random.seed without its Python-level dispatch on the type of the seed: 5 us instead of 8, for every job.
_python_random: Any = random.seed.__self__  # type: ignore[attr-defined]
_python_seed = super(random.Random, _python_random).seed


def _words_of_python() -> Any:
    """Return an array over the memory of ``random``'s state (MT19937: position, 624 words); None if it is not found.

    Copying the array takes 1 us. Asking Python for the state takes 10 us.
    """
    start, nbytes = object.__basicsize__, 4 * 625
    if type(_python_random).__mro__[1].__basicsize__ < start + nbytes:
        return None
    words = np.ctypeslib.as_array((ctypes.c_uint32 * 625).from_address(id(_python_random) + start))
    told = random.getstate()[1]
    return words if (words[1:] == told[:-1]).all() and words[0] == told[-1] else None


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
    Always call these functions, as saving alone already disturbs the state of ``numpy.random``."""
    restore: list[Callable[[], None]] = [_save_python(), _save_numpy()]
    for save_framework in frameworks.answering("save"):
        restore += save_framework()
    return restore


def _save_python() -> Callable[[], None]:
    if _python_words is None:
        return functools.partial(random.setstate, random.getstate())
    return functools.partial(_restore_python, _python_words.copy(), _python_random.gauss_next)


def _restore_python(words: Any, gaussian: float | None) -> None:
    _python_words[:] = words
    _python_random.gauss_next = gaussian


def states() -> list[tuple[str, Any]]:
    """Return [(name, state)] of the global random generators, to find out whether a job has drawn from them."""
    words = None if _python_words is None else (int(_python_words[0]), int(_python_words[1]))
    found = [
        ("random", (words or hash(random.getstate()), _python_random.gauss_next)),
        ("numpy.random", _numpy_state()),
    ]
    return found + [each for states_of_framework in frameworks.asked("states") for each in states_of_framework]


def _numpy_state() -> Any:
    generator: Any = np.random.mtrand._rand._bit_generator
    if type(generator) is np.random.MT19937:
        if not _users or _users[0].generator is not generator:
            _users[:] = [_Users(generator)]
        if _users[0].is_known:
            return _users[0].place
    return numpy_words()


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


def place_of_global(obj: Any) -> tuple[types.ModuleType, str] | None:
    """Return (module, name) of ``obj`` if it is one of the global random generators of the process, else None.

    A Sequence may hold a global generator, for instance by its method ``np.random.permutation``. In a worker, it then
    holds the worker's global generator. A copy would be seeded like the Sequence's own generators, and so draw other
    numbers.
    """
    if not isinstance(obj, (np.random.RandomState, random.Random)) and type(obj).__name__ != "Generator":
        return None
    for module, name in (("numpy.random.mtrand", "_rand"), ("random", "_inst")):
        if getattr(sys.modules.get(module), name, None) is obj:
            return sys.modules[module], name
    place: tuple[types.ModuleType, str] | None = frameworks.first_answer("place_of_global", obj)
    return place


class _Users:
    """The program's own bit generator of ``numpy.random`` (an MT19937), saved before each job and restored after it.

    Its words are copied from memory in 1 us; asking numpy for the state takes 85 us. The only other part of the state
    is the second Gaussian of a pair, if numpy has kept it. If so, drawing a Gaussian leaves the words unchanged.
    """

    def __init__(self, generator: Any) -> None:
        self.generator = generator
        self.is_seeded = _is_seeded(generator)  # now, before jobs seed it
        address = generator.ctypes.state_address
        self._words = np.ctypeslib.as_array((ctypes.c_uint32 * 625).from_address(address))  # 624, and the position
        told = generator.state["state"]
        self.is_known = bool((self._words[:624] == told["key"]).all() and self._words[624] == told["pos"])

    @property
    def place(self) -> tuple[int, int]:
        """The position, and a word of the state, which show together whether anything has been drawn."""
        return int(self._words[624]), int(self._words[0])

    def save(self) -> Callable[[], None]:
        """Return a function that restores the present state of ``numpy.random``.
        Always call that function, as saving alone already disturbs the state."""
        words = self._words.copy()
        try:
            return functools.partial(self._restore, words, self._take_gaussian(words))
        except BaseException:  # a Ctrl-C
            self._words[:] = words
            raise

    def _take_gaussian(self, words: Any) -> float | None:
        """Remove and return the second Gaussian of a pair that ``numpy.random`` has kept; None if there is none.
        ``words`` is a copy of the state's words, made before this call."""
        drawn = float(np.random.standard_normal())
        return drawn if self._is_at(words) else None

    def _is_at(self, words: Any) -> bool:
        return bool(self._words[624] == words[624] and self._words[0] == words[0])

    def _restore(self, words: Any, gaussian: float | None) -> None:
        if np.random.mtrand._rand._bit_generator is not self.generator:  # the job has replaced it
            of_numpy: Any = np.random
            of_numpy.set_bit_generator(self.generator)
        now = self._words.copy()
        np.random.standard_normal()
        if not self._is_at(now):  # the first of a new pair: drop the second
            np.random.standard_normal()
        self._words[:] = words
        if gaussian is not None:
            state: Any = np.random.get_state(legacy=False)
            np.random.set_state({**state, "has_gauss": 1, "gauss": gaussian})


_users: list[_Users] = []  # at most one: the last one seen
_ours = np.random.MT19937(0)


def _save_numpy() -> Callable[[], None]:
    generator: Any = np.random.mtrand._rand._bit_generator
    if type(generator) is np.random.MT19937:
        if not _users or _users[0].generator is not generator:
            _users[:] = [_Users(generator)]
        if _users[0].is_known:
            return _users[0].save()
    return _save_any()


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
