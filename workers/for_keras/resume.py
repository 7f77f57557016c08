"""Provides a Keras callback that saves the state of a Sequence after each epoch, and loads it when ``fit`` begins."""

from __future__ import annotations

import functools
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workers.sequence.base import Sequence


@functools.cache
def _class() -> Any:
    import keras

    class ResumeSequence(keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self, sequence: Sequence, path: str | os.PathLike[str], delete_at_end: bool = True) -> None:
            super().__init__()
            if not hasattr(sequence, "load_state_dict"):
                raise TypeError(f"sequence must have state_dict and load_state_dict, not {type(sequence).__name__}")
            self.sequence = sequence
            self.path = os.fspath(path)
            self.delete_at_end = delete_at_end

        def __repr__(self) -> str:
            return f"<ResumeSequence of {type(self.sequence).__name__}: {self.path}>"

        def on_train_begin(self, logs: Any = None) -> None:
            if os.path.exists(self.path):
                with open(self.path) as file:
                    self.sequence.load_state_dict(json.load(file))

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
            with open(self.path + ".new", "w") as file:
                json.dump(self.sequence.state_dict(), file)
            os.replace(self.path + ".new", self.path)

        def on_train_end(self, logs: Any = None) -> None:
            if self.delete_at_end and os.path.exists(self.path):
                os.remove(self.path)

    return ResumeSequence


def ResumeSequence(  # to its users a class; the real class is made on first use, as it needs Keras
    sequence: Sequence, path: str | os.PathLike[str], delete_at_end: bool = True
) -> Any:
    """A ``keras.callbacks.Callback`` that lets ``fit`` resume at the epoch in which it was stopped.

    Use it in ``fit`` together with ``keras.callbacks.BackupAndRestore``, which restores the weights and the number of
    the epoch. The state is written after each epoch, and read when ``fit`` begins. Keras draws the order of the batches
    from Python's ``random``: write ``shuffle=False`` if the order must be the same after resuming.

    Args:
        sequence: the sequence that ``fit`` is given.
        path: the JSON file for ``sequence.state_dict()``, written at the end of each epoch.
        delete_at_end: remove the file when ``fit`` ends normally, so that the next ``fit`` does not resume.

    Raises:
        TypeError: ``sequence`` has no ``load_state_dict``. StateError: raised when ``fit`` begins, if the file holds
            the state of another sequence.
    """
    return _class()(sequence, path, delete_at_end)
