"""PyDatasets that say by ``num_batches`` alone how many batches they have, as indexed sources: None is no end."""

from __future__ import annotations

from typing import Any

from .dataset import keras_class
from .reading import ENDLESS


class Counted:
    """The batches of a PyDataset that defines ``num_batches`` and no ``__len__``."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    @property
    def name(self) -> str:
        """What a state calls it: the class of the dataset, as if that had a ``__len__``."""
        return type(self.dataset).__qualname__

    @property
    def dataset_name(self) -> str:
        """What an error calls it."""
        return type(self.dataset).__name__

    def __len__(self) -> int:
        return self.dataset.num_batches  # type: ignore[no-any-return]

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def on_epoch_begin(self) -> None:
        self.dataset.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.dataset.on_epoch_end()


class Endless(Counted):
    """The batches of a PyDataset without an end."""

    name = "Endless"

    def __len__(self) -> int:
        return ENDLESS


def counted(source: Any) -> Any:
    """``source``, or what stands for it if it is a PyDataset that has no end, or no ``__len__``."""
    of_keras: Any = keras_class()
    if of_keras is None or not isinstance(source, of_keras) or hasattr(type(source), "_begin_epoch"):
        return source
    try:
        number = source.num_batches
    except NotImplementedError:  # it does not say: Keras's own loop over it has no end either
        has_loop = type(source).__iter__ is not of_keras.__iter__ or hasattr(source, "__len__")
        return source if has_loop else Endless(source)
    except TypeError:  # of its own __len__, which says what is wrong when it is asked
        return source
    if number is None:
        return Endless(source)
    return source if hasattr(source, "__len__") else Counted(source)
