"""Provides the callback of Lightning that hands figures to the trainer's loggers."""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any

from workers.sequence.base import Sequence

from .logged import LoggedFigures

_PACKAGES = "lightning.pytorch", "pytorch_lightning"  # the same under two names, with classes of their own


def is_loaded() -> bool:
    return any(package in sys.modules for package in _PACKAGES)


def callback_class() -> Any:
    """Return the class of the callback, which is one of each package that is loaded."""
    return _class(tuple(package for package in _PACKAGES if package in sys.modules) or _PACKAGES[:1])


@functools.cache
def _class(packages: tuple[str, ...]) -> Any:
    bases = [importlib.import_module(package).Callback for package in packages]

    class LightningLogLoading(*bases):  # type: ignore[misc]
        async_safe = True  # if it is given to Keras, that calls set_model before anything else

        def __init__(self, batches: Any, every: int) -> None:
            super().__init__()
            self.batches = batches
            self.every = every
            self._recent: LoggedFigures | None = None
            self._step = 0  # as loggers count
            self._num_steps = 0  # since it was read

        def set_model(self, model: Any) -> None:
            raise TypeError('this is the LogLoading of Lightning, for Keras write LogLoading(framework="keras")')

        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            self._recent, self._num_steps = None, 0

        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            batches = _found(trainer) if self.batches is None else self.batches
            if self._recent is None or not self._recent.is_of(batches):  # the trainer may reload its data
                self._recent, self._num_steps = LoggedFigures(batches), 0

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            self._step = getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", trainer.global_step)
            self._num_steps += 1
            if self._num_steps >= self.every:
                self._log(trainer)

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if self._num_steps:
                self._log(trainer)

        def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
            self._recent = None

        def _log(self, trainer: Any) -> None:
            assert self._recent is not None
            self._num_steps, figures = 0, self._recent.read()
            for each in trainer.loggers:
                each.log_metrics(figures, step=self._step)

    return LightningLogLoading


def _found(trainer: Any) -> Any:
    batches = trainer.train_dataloader
    if not isinstance(batches, Sequence):
        raise TypeError(
            f"LogLoading has found no front-end in trainer.train_dataloader, which is a {type(batches).__name__}: give "
            "fit a front-end, such as dataset.prefetch(). If fit reads it through something else, name it: "
            "LogLoading(batches)"
        )
    return batches
