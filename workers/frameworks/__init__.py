"""Supports TensorFlow, torch, JAX, Keras, albumentations and Pillow, one file each. No file imports its framework.

A file imports nothing from ``workers`` outside this package. It defines those of the following functions that make
sense for its framework. The functions of this module call them, in the files of all frameworks that are loaded:

- ``kinds()``: {class of random generators: :class:`Kind`}.
- ``seed(number)``, ``save()``: seed the framework's global generators for a job; return functions that restore them.
- ``states()``: [(name, state)] of these global generators, to find out whether a job has drawn from them.
- ``look_after(job)``: make the framework draw from the current job's generators, which functions of ``job`` return.
- ``process_generators()``: [(path, generator)] of the global generators that the framework creates on first use;
  ``generator`` is None if it does not exist yet.
- ``seed_of_program()``: a value that shows how the program has seeded its global generators; None if it has not.
- ``place_of_global(obj)``: (module, name) of ``obj`` if it is a global generator, else None.
- ``to_numpy(tensor)``: the tensor as a numpy array; None if it is not of this framework.
- ``settings()``: {module: {setting: value}} of the program. ``apply(module, values)``: set them in a worker; False if
  the module is still being imported.
- ``default_generator()``: the generator that the framework's functions draw from.
- ``own_copy(value)``: a copy of a tensor, to be written into; None if ``value`` is not a tensor of this framework.
- ``is_of_subclass(value)``, ``is_iterable_dataset(value)``: see ``torch``.
- ``reduced(obj, memory)``: how a worker rebuilds a tensor, as from ``__reduce__``; None to leave this to its class.
- ``version(obj)``: a value that changes when a tensor is written to. ``owns(obj)``: True for memory that cannot be
  write-protected.
- ``reduced_function(obj)``: how a worker rebuilds a traced function; None for other objects.
- ``Tensors``: a class that makes tensors from arrays, on a device.
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
    """The functions that seed and save random generators of one class, and show if two were made from the same seed."""

    family: str  # generators of one family may share a seed, to draw the same numbers
    seed: Callable[[Any, int], None]  # sets a generator by a 62-bit number
    save: Callable[[Any], Callable[[], None]]  # returns a function that restores the state
    state: Callable[[Any], Any]  # returns the present state, to be compared; None if it does not show the origin
    record: Callable[[Any], Any]  # returns the seed that it was made from; None if it does not keep it


class NoArrayError(Exception):
    """Raised if ``leaf``, a tensor in a batch, cannot become an array. ``reason`` says why, e.g. "is sparse: ..."."""

    def __init__(self, leaf: Any, reason: str) -> None:
        super().__init__(leaf, reason)
        self.leaf, self.reason = leaf, reason


class Memory:
    """A view of ``nbytes`` bytes at ``address`` that numpy can turn into an array. The memory belongs to ``base``."""

    def __init__(self, base: Any, address: int, nbytes: int, is_writable: bool = False) -> None:
        self.base = base
        data = address, not is_writable
        self.__array_interface__ = {"data": data, "shape": (nbytes,), "typestr": "|u1", "version": 3}


def file_of(name: str) -> Any:
    """Return the module ``name`` of this package, which supports a framework: "torch", "keras", "pillow", ..."""
    return importlib.import_module(f"{__name__}.{name}")


_Answers = tuple[Callable[..., Any], ...]
_answers: dict[str, _Answers] = {}  # {question: functions that answer it}, until more modules are loaded
_num_modules = 0  # in sys.modules, when ``_answers`` was emptied


def answering(question: str) -> _Answers:
    """Return the functions called ``question`` in the files of the loaded frameworks.
    They are cached, because this is called several times for each batch."""
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
    """Call the functions called ``question`` in the files of the loaded frameworks, and return all their results."""
    return [answer(*arguments) for answer in answering(question)]


def first_answer(question: str, *arguments: Any) -> Any:
    """Call the functions called ``question``, in the files of the loaded frameworks, until a result is not None.
    Return this result, or None if there is none."""
    for answer in answering(question):
        found = answer(*arguments)
        if found is not None:
            return found
    return None


def file_with_settings_of(module: str) -> Any:
    """Return the module of this package that can apply settings to a framework's ``module``, e.g. "PIL.Image"."""
    return file_of(_FILES[module.partition(".")[0]])


def process_generators() -> list[tuple[str, Any]]:
    """Return [(path, generator)] of the frameworks' global generators that are created on first use.
    A generator that was not created yet is None."""
    return [each for found in asked("process_generators") for each in found]
