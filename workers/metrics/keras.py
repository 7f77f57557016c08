"""Provides the callback of Keras that writes figures into the logs of ``fit``, where later callbacks find them."""

from __future__ import annotations

import functools
from typing import Any

from workers.for_keras.adapter import sequence_in_fit
from workers.for_keras.reading import loop_of

from .logged import LoggedFigures


@functools.cache
def callback_class() -> Any:
    """Return the class of the callback. It is made on first use, as it needs Keras."""
    import keras

    class KerasLogLoading(keras.callbacks.Callback):  # type: ignore[misc]
        async_safe = True  # else Keras would wait for the device at each step: see on_train_batch_end

        def __init__(self, batches: Any, every: int) -> None:
            super().__init__()
            self.batches = batches
            self.every = every
            self._recent: LoggedFigures | None = None  # of the last ``every`` steps
            self._of_epoch: LoggedFigures | None = None
            self._shown: dict[str, float] = {}  # what was read last
            self._step = 0  # of the epoch
            self._size = 1  # steps in one execution, see steps_per_execution
            self._num_steps = 0  # since it was read

        def on_train_begin(self, logs: Any = None) -> None:
            self._recent = self._of_epoch = None
            self._shown, self._step, self._size, self._num_steps = {}, 0, 1, 0

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if self._recent is None:  # only now is it certain which sequence is read
                sequence = _found(self.batches)
                self._recent, self._of_epoch = LoggedFigures(sequence), LoggedFigures(sequence)
                self._step = batch
                return
            self._size = batch - self._step if batch > self._step else self._size  # else an epoch begins
            self._step, self._num_steps = batch, self._num_steps + self._size
            if self._num_steps >= self.every:
                self._num_steps, self._shown = 0, self._recent.read()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if logs is not None:  # perhaps in another thread, and not in the order of the steps
                logs.update(self._shown)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if logs is not None and self._of_epoch is not None:
                logs.update(self._of_epoch.read())

        def on_train_end(self, logs: Any = None) -> None:
            self._recent = self._of_epoch = None

    return KerasLogLoading


def _found(batches: Any) -> Any:
    sequence = sequence_in_fit() if batches is None else batches
    if sequence is None:
        raise TypeError(
            "LogLoading has found no sequence that fit reads: give fit a front-end, or a Sequence. If fit reads it "
            "through something else, such as a generator, name it: LogLoading(batches)"
        )
    loop_of(sequence)  # makes the loop of a sequence that is not a front-end, if Keras has not read it yet
    return sequence
