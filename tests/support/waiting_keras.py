"""Jobs that wait, and draw from the generator that Keras has for all that were given none."""

from __future__ import annotations

import threading
import time
from typing import Any

import keras

from workers import Sequence


class Waiting(Sequence[Any]):
    def __init__(self) -> None:
        super().__init__(seed=3)

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.01)
        return float(keras.random.uniform(())), threading.current_thread() is not threading.main_thread(), index
