"""Makes albumentations draw from the current job's generators: its own would draw the same numbers in all workers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

_CLASSES = ("core.transforms_interface", "BasicTransform"), ("core.composition", "BaseCompose")


class _OfJob:
    """A descriptor for an attribute with a random generator. During a job, the attribute is the job's generator."""

    of_job = True

    def __init__(self, name: str, of_job: Callable[[], Any]) -> None:
        self._name = name
        self._of_job = of_job

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        generator = self._of_job()
        if generator is not None:
            return generator
        try:
            return instance.__dict__[self._name]
        except KeyError:
            raise AttributeError(self._name) from None

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self._name] = value


def look_after(job: Any) -> None:
    """Make albumentations' transforms draw from the current job's generators, which functions of ``job`` return."""
    for module, name in _CLASSES:
        of = getattr(sys.modules.get(f"albumentations.{module}"), name, None)
        if of is not None and "py_random" not in of.__dict__:
            of.random_generator = _OfJob("random_generator", job.numpy_generator)
            of.py_random = _OfJob("py_random", job.python_generator)
