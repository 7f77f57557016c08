"""The generators of the whole process: seeded for a job, and in the consumer's process put back behind it."""

from __future__ import annotations

import functools
import random
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.random  # now: numpy puts it off until it is asked for, and a Ctrl-C in an import is an ImportError

from . import context, tensorflow_draws
from .stream import MAX_SEED, Stream

# random.seed without its Python-level dispatch on the type of the seed: 5 us instead of 8, for every job.
_python_random: Any = random.seed.__self__  # type: ignore[attr-defined]
_python_seed = super(random.Random, _python_random).seed


def seed(stream: Stream, epoch: int, index: int) -> None:
    """Seed them for a job."""
    number, number_for_numpy = stream.seeds_of_globals(epoch, index)
    _python_seed(number)
    _python_random.gauss_next = None
    np.random.seed(number_for_numpy)
    for generator in _torch_generators():
        generator.manual_seed(number & MAX_SEED)


def save() -> list[Callable[[], None]]:
    """Returns: what restores those that are not the job's to change. That of ``numpy.random`` is another one from here
    on."""
    restore: list[Callable[[], None]] = [functools.partial(random.setstate, random.getstate()), _save_numpy()]
    restore += [functools.partial(each.set_state, each.get_state()) for each in _torch_generators()]
    if tensorflow_draws.is_ready():
        restore.append(functools.partial(tensorflow_draws.restore_source, tensorflow_draws.source_of_seeds()))
    return restore


_ours = np.random.MT19937(0)


def _save_numpy() -> Callable[[], None]:
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


def _torch_generators() -> list[Any]:
    """Those of the whole process, as far as torch is loaded and its accelerators are in use.

    ``torch.manual_seed`` takes 150 us: where there is no accelerator in use it writes a stack down for later.
    """
    generators = [getattr(sys.modules.get("torch"), "default_generator", None)]
    for name in ("torch.cuda", "torch.xpu"):
        accelerator = sys.modules.get(name)
        if accelerator is not None and getattr(accelerator, "is_initialized", bool)():
            generators += accelerator.default_generators
    return [generator for generator in generators if generator is not None]


class _OfJob:
    """An attribute that holds a generator; in a job it is the job's."""

    of_job = True

    def __init__(self, name: str, of: Callable[[Stream], Any]) -> None:
        self._name = name
        self._of = of

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        stream = context.here.stream
        if stream is not None:
            return self._of(stream)
        try:
            return instance.__dict__[self._name]
        except KeyError:
            raise AttributeError(self._name) from None

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self._name] = value


def _give_to_albumentations() -> None:
    """Its objects have generators of their own, which a copy in each worker would repeat."""
    for module, name in (("core.transforms_interface", "BasicTransform"), ("core.composition", "BaseCompose")):
        of = getattr(sys.modules.get(f"albumentations.{module}"), name, None)
        if of is not None and "py_random" not in of.__dict__:
            of.random_generator = _OfJob("random_generator", Stream.generator)
            of.py_random = _OfJob("py_random", Stream.python)


def look_after_frameworks() -> None:
    """Have what was loaded in the meantime draw as the job does."""
    if "tensorflow" in sys.modules:
        tensorflow_draws.install(context.current_stream, context.is_in_worker_process)
    if "albumentations" in sys.modules:
        _give_to_albumentations()
