"""Support for each framework: one file each, which knows numpy and no other room. Importing a file loads no framework.

A file answers those of these questions that make sense for its framework. The functions below ask all frameworks that
are loaded:

- ``kinds()``: {class of random generators: :class:`Kind`}.
- ``seed(number)``, ``save()``: seed the framework's global generators for a job; return functions that restore them.
- ``look_after(job)``: make the framework draw from the generators of ``job``, while one runs.
- ``process_generators()``: [(path, generator)] of global generators that are created on first use; None: not yet.
- ``seed_of_program()``: how the program has seeded the global generators; None: it has not.
- ``place_of_global(obj)``: (module, name) of ``obj``, if it is a global generator.
- ``to_numpy(tensor)``: the tensor as an array; None: it is not of this framework.
- ``settings()``: {module: {setting: value}} of the program. ``apply(module, values)``: set them in a worker; False: the
  module is still being imported.
- ``default_generator()``: the generator that the framework's functions draw from.
- ``own_copy(value)``: a tensor that may be written into, copied if necessary; None: ``value`` is not a tensor.
- ``is_of_subclass(value)``, ``is_iterable_dataset(value)``: see ``torch``.
- ``reduced(obj, memory)``: how a worker rebuilds a tensor, as ``__reduce__`` returns it; None: as its class defines.
- ``version(obj)``: a value that changes when a tensor is written to. ``owns(obj)``: True for memory that cannot be
  write-protected.
- ``reduced_function(obj)``: how a worker rebuilds a traced function, likewise.
- ``Tensors``: makes tensors from arrays, on a device.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

#: The values of ``output`` of a front-end, besides arrays.
OutputName: TypeAlias = Literal["torch", "jax", "tf"]

#: {package that is loaded with a framework: the framework's file}.
_FILES = {
    "torch": "torch",
    "tensorflow": "tensorflow",
    "keras": "keras",
    "jax": "jax",
    "albumentations": "albumentations",
    "PIL": "pillow",
}
#: The packages that define tensors.
PACKAGES = "tensorflow", "torch", "jax", "jaxlib"
#: {output: the file that makes its tensors}.
OUTPUTS = {"torch": "torch", "jax": "jax", "tf": "tensorflow"}
#: The frameworks that draw random numbers, and are seeded only once they are loaded.
THAT_DRAW = "tensorflow", "torch", "keras", "albumentations"


class Kind(NamedTuple):
    """The operations on random generators of one class."""

    family: str  # generators of one family may share a seed, to draw the same numbers
    seed: Callable[[Any, int], None]  # sets a generator by a 62-bit number
    save: Callable[[Any], Callable[[], None]]  # returns a function that restores the state
    state: Callable[[Any], Any]  # returns the present state, to be compared; None: it does not show the origin
    record: Callable[[Any], Any]  # returns the seed that it was made from; None if it does not keep it


class NoArrayError(Exception):
    """A leaf is a tensor that cannot become an array."""

    def __init__(self, leaf: Any, reason: str) -> None:
        super().__init__(leaf, reason)
        self.leaf, self.reason = leaf, reason


class Memory:
    """The ``nbytes`` bytes at ``address``, which belong to ``base``, in a form that numpy accepts."""

    def __init__(self, base: Any, address: int, nbytes: int, is_writable: bool = False) -> None:
        self.base = base
        data = address, not is_writable
        self.__array_interface__ = {"data": data, "shape": (nbytes,), "typestr": "|u1", "version": 3}


def file_of(name: str) -> Any:
    """Return the file of a framework."""
    return importlib.import_module(f"{__name__}.{name}")


_Answers = tuple[Callable[..., Any], ...]
_answers: dict[str, _Answers] = {}  # {question: functions that answer it}, until more modules are loaded
_num_modules = 0  # in sys.modules, when ``_answers`` was emptied


def answering(question: str) -> _Answers:
    """Return the functions that answer ``question``. They are cached, as each job asks several times."""
    global _answers, _num_modules
    if len(sys.modules) != _num_modules:
        _answers, _num_modules = {}, len(sys.modules)
    answers = _answers  # another thread may replace it when it loads modules
    found = answers.get(question)
    if found is None:
        files = [file_of(name) for package, name in _FILES.items() if package in sys.modules]
        found = answers[question] = tuple(getattr(file, question) for file in files if hasattr(file, question))
    return found


def asked(question: str, *arguments: Any) -> list[Any]:
    """Return the answers to ``question`` of all frameworks that this process has loaded."""
    return [answer(*arguments) for answer in answering(question)]


def first_answer(question: str, *arguments: Any) -> Any:
    """Return the first answer that is not None, or None."""
    for answer in answering(question):
        found = answer(*arguments)
        if found is not None:
            return found
    return None


def file_with_settings_of(module: str) -> Any:
    """Return the file that knows the settings of ``module``."""
    return file_of(_FILES[module.partition(".")[0]])


def process_generators() -> list[tuple[str, Any]]:
    """Return [(path, generator)] of global generators that are created on first use; None: not yet."""
    return [each for found in asked("process_generators") for each in found]
