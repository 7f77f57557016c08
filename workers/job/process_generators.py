"""The generators of the whole process: seeded for a job, and in the consumer's process put back behind it."""

from __future__ import annotations

import ctypes
import functools
import random
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.random  # now: numpy puts it off until it is asked for, and a Ctrl-C in an import is an ImportError

from workers import frameworks

from . import context
from .stream import Stream

# random.seed without its Python-level dispatch on the type of the seed: 5 us instead of 8, for every job.
_python_random: Any = random.seed.__self__  # type: ignore[attr-defined]
_python_seed = super(random.Random, _python_random).seed


def _words_of_python() -> Any:
    """The state of ``random``, an MT19937, where it lies in memory, to be kept in 1 us: the place, and 624 words.

    To ask Python for it takes 10 us. None: it lies elsewhere.
    """
    start, nbytes = object.__basicsize__, 4 * 625
    if type(_python_random).__mro__[1].__basicsize__ < start + nbytes:
        return None
    words = np.ctypeslib.as_array((ctypes.c_uint32 * 625).from_address(id(_python_random) + start))
    told = random.getstate()[1]
    return words if (words[1:] == told[:-1]).all() and words[0] == told[-1] else None


_python_words = _words_of_python()


def seed(stream: Stream, epoch: int, index: int) -> None:
    """Seed them for a job."""
    number, number_for_numpy = stream.seeds_of_globals(epoch, index)
    _python_seed(number)
    _python_random.gauss_next = None
    np.random.seed(number_for_numpy)
    for seed_framework in frameworks.answering("seed"):
        seed_framework(number)


def save() -> list[Callable[[], None]]:
    """Returns: what restores those that are not the job's to change. That of ``numpy.random`` is another one from here
    on."""
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


def numpy_words() -> list[tuple[str, bytes]]:
    """The state of ``numpy.random``."""
    of_numpy: Any = np.random
    state = of_numpy.get_state(legacy=False)["state"]
    return [(name, np.asarray(value).tobytes()) for name, value in sorted(state.items())]


def is_numpy_seeded() -> bool:
    """Whether the program has called ``np.random.seed``. Not seen if it does so after a job has run in this process."""
    generator: Any = np.random.mtrand._rand._bit_generator
    known = bool(_users) and _users[0].generator is generator
    return _users[0].is_seeded if known else _is_seeded(generator)


def _is_seeded(generator: Any) -> bool:
    return getattr(generator, "_seed_seq", None) is None  # it forgets what it was made of


def place_of_global(obj: Any) -> tuple[types.ModuleType, str] | None:
    """Where the process has ``obj``, if that is one of its own generators; None: it is not.

    Workers have their own. A copy, such as of what the method ``np.random.permutation`` belongs to, would be seeded
    as one that the Sequence holds, and draw other numbers.
    """
    if not isinstance(obj, (np.random.RandomState, random.Random)) and type(obj).__name__ != "Generator":
        return None
    for module, name in (("numpy.random.mtrand", "_rand"), ("random", "_inst")):
        if getattr(sys.modules.get(module), name, None) is obj:
            return sys.modules[module], name
    place: tuple[types.ModuleType, str] | None = frameworks.first_answer("place_of_global", obj)
    return place


class _Users:
    """The user's generator of ``numpy.random``, an MT19937: its state where it lies, to be kept in 1 us.

    To ask numpy for it takes 85 us. Besides the state there is at most one number: of Gaussians, which come in pairs,
    the second one. To draw one shows whether it is there: then the state stays as it is.
    """

    def __init__(self, generator: Any) -> None:
        self.generator = generator
        self.is_seeded = _is_seeded(generator)  # now, before jobs seed it
        address = generator.ctypes.state_address
        self._words = np.ctypeslib.as_array((ctypes.c_uint32 * 625).from_address(address))  # 624, and the place
        told = generator.state["state"]
        self.is_known = bool((self._words[:624] == told["key"]).all() and self._words[624] == told["pos"])

    def save(self) -> Callable[[], None]:
        """See :func:`save`."""
        words = self._words.copy()
        try:
            return functools.partial(self._restore, words, self._take_gaussian(words))
        except BaseException:  # a Ctrl-C
            self._words[:] = words
            raise

    def _take_gaussian(self, words: Any) -> float | None:
        """The second Gaussian of a pair, which is gone then; None: there is none."""
        drawn = float(np.random.standard_normal())
        return drawn if self._is_at(words) else None

    def _is_at(self, words: Any) -> bool:
        return bool(self._words[624] == words[624] and self._words[0] == words[0])

    def _restore(self, words: Any, gaussian: float | None) -> None:
        if np.random.mtrand._rand._bit_generator is not self.generator:  # the job has put another one in
            of_numpy: Any = np.random
            of_numpy.set_bit_generator(self.generator)
        now = self._words.copy()
        np.random.standard_normal()
        if not self._is_at(now):  # of a pair, whose second one must go
            np.random.standard_normal()
        self._words[:] = words
        if gaussian is not None:
            state: Any = np.random.get_state(legacy=False)
            np.random.set_state({**state, "has_gauss": 1, "gauss": gaussian})


_users: list[_Users] = []  # the one that was seen last
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
    """The same of any generator, in 100 us."""
    of_numpy: Any = np.random
    state = of_numpy.get_state(legacy=False)  # 85 us, for one number: the second of a pair of Gaussians
    if not hasattr(of_numpy, "set_bit_generator"):  # numpy < 1.24
        return functools.partial(of_numpy.set_state, state)
    users = of_numpy.get_bit_generator()
    # One of ours, which costs 80 us to make: another one only for a job within a job.
    of_numpy.set_bit_generator(_ours if users is not _ours else np.random.MT19937(0))
    return functools.partial(_restore_numpy, users, state if state["has_gauss"] else None)


def _restore_numpy(users: Any, state: Any) -> None:
    of_numpy: Any = np.random
    of_numpy.set_bit_generator(users)
    if state is not None:
        of_numpy.set_state(state)


def look_after_frameworks() -> None:
    """Have what was loaded in the meantime draw as the job does."""
    for look_after in frameworks.answering("look_after"):
        look_after(_Current)


class _Current:
    """The job that runs now, as frameworks ask for it."""

    current_stream = staticmethod(context.current_stream)
    is_in_worker_process = staticmethod(context.is_in_worker_process)

    @staticmethod
    def numpy_generator() -> Any:
        """None: there is no job."""
        stream = context.current.stream
        return None if stream is None else stream.generator()

    @staticmethod
    def python_generator() -> Any:
        stream = context.current.stream
        return None if stream is None else stream.python()
