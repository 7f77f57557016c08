"""What is known of each framework: one file each, which knows numpy and nothing of ours. None is imported for it.

A file answers those of these questions that make sense for its framework; the functions below ask all of them:

- ``kinds()``: {a class of random generators: what is done with them}.
- ``seed(number)``, ``save()``: of the generators that the whole process has: seed them for a job, return what restores
  them.
- ``look_after(job)``: have it draw from the generators of ``job``, where there is one.
- ``process_generators()``: (path, generator) of such generators that are made when they are first asked for; None:
  not yet.
- ``seed_of_program()``: how the program has seeded them; None: it has not.
- ``place_of_global(obj)``: where it has ``obj``, if that is such a generator.
- ``to_numpy(tensor)``: as an array; None: it is none of its own.
- ``settings()``: {module: {setting: value}} that the program has set for itself. ``apply(module, values)``: have them
  in a worker; False: that is still being imported.
- ``default_generator()``: that which its functions draw from.
- ``own_copy(value)``: a copy of a tensor that may be written into; None: it is none.
- ``reduced(obj, memory)``: how a worker makes a tensor again, as ``__reduce__`` has it; None: as its class says.
- ``version(obj)``: what changes when a tensor is written to. ``owns(obj)``: it is memory that cannot be protected.
- ``reduced_function(obj)``: the same of a function that it has traced.
- ``Tensors``: makes tensors of arrays, on a device.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

#: What a front-end may have as ``output``.
OutputName: TypeAlias = Literal["torch", "jax", "tf"]

#: {the package that tells whether a framework is loaded: what knows it}.
_FILES = {
    "torch": "torch",
    "tensorflow": "tensorflow",
    "keras": "keras",
    "jax": "jax",
    "albumentations": "albumentations",
    "PIL": "pillow",
}
#: The packages whose classes are tensors.
PACKAGES = "tensorflow", "torch", "jax", "jaxlib"
#: {output: the file that makes its tensors}.
OUTPUTS = {"torch": "torch", "jax": "jax", "tf": "tensorflow"}
#: The frameworks with random generators that are seeded only where they are loaded.
THAT_DRAW = "tensorflow", "torch", "keras", "albumentations"


class Kind(NamedTuple):
    """What is done with the random generators of a class."""

    family: str  # generators of one family may be made of the same seed, to draw the same numbers
    seed: Callable[[Any, int], None]  # to a 62-bit number
    save: Callable[[Any], Callable[[], None]]  # returns what restores its state
    state: Callable[[Any], Any]  # as it stands, to be compared; None: it does not tell what it was made of
    record: Callable[[Any], Any]  # the seed that it was made of, as far as it has that still; None: it has not


class NoArrayError(Exception):
    """A leaf is a tensor that cannot become an array."""

    def __init__(self, leaf: Any, reason: str) -> None:
        super().__init__(leaf, reason)
        self.leaf, self.reason = leaf, reason


class Memory:
    """The ``nbytes`` at ``address``, as numpy takes them; they are those of ``base``."""

    def __init__(self, base: Any, address: int, nbytes: int, is_writable: bool = False) -> None:
        self.base = base
        data = address, not is_writable
        self.__array_interface__ = {"data": data, "shape": (nbytes,), "typestr": "|u1", "version": 3}


def file_of(name: str) -> Any:
    """The file of a framework."""
    return importlib.import_module(f"{__name__}.{name}")


_Answers = tuple[Callable[..., Any], ...]
_answers: dict[str, _Answers] = {}  # {question: what answers it}, as long as no more modules are loaded
_num_modules = 0  # of sys.modules, when it was filled


def answering(question: str) -> _Answers:
    """What answers ``question``. Asked several times for each job, so it is known."""
    global _answers, _num_modules
    if len(sys.modules) != _num_modules:
        _answers, _num_modules = {}, len(sys.modules)
    answers = _answers  # what is loaded meanwhile, by another thread, has another one
    found = answers.get(question)
    if found is None:
        files = [file_of(name) for package, name in _FILES.items() if package in sys.modules]
        found = answers[question] = tuple(getattr(file, question) for file in files if hasattr(file, question))
    return found


def asked(question: str, *arguments: Any) -> list[Any]:
    """What those that this process has loaded answer to ``question``."""
    return [answer(*arguments) for answer in answering(question)]


def first_answer(question: str, *arguments: Any) -> Any:
    """The first answer that is not None; None: there is none."""
    for answer in answering(question):
        found = answer(*arguments)
        if found is not None:
            return found
    return None


def file_with_settings_of(module: str) -> Any:
    """The file that knows the settings of ``module``."""
    return file_of(_FILES[module.partition(".")[0]])


def process_generators() -> list[tuple[str, Any]]:
    """(path, generator) of those of the whole process that are made when they are first asked for; None: not yet."""
    return [each for found in asked("process_generators") for each in found]
