"""Support for Keras: handles its PyDataset, its random generators, and its settings."""

from __future__ import annotations

import copyreg
import functools
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from . import Kind, tensorflow
from .tensorflow import assign, is_plain, read

_STATE = "keras.src.backend.common.global_state"
_SEEDS = "keras.src.random.seed_generator"
_SETTINGS = "floatx", "epsilon", "image_data_format", "dtype_policy"
PACKAGE = "keras"
ENDLESS = 2**62  # batches: the length of an endless data set
_LEAST_ENDLESS = 2**46  # a data set this long has no end either: it may be one rank's part, of up to 2**16 ranks


def keras_class() -> type | None:
    """Return the class ``keras.utils.PyDataset`` if Keras is loaded, else None."""
    dataset = getattr(getattr(sys.modules.get("keras"), "utils", None), "PyDataset", None)
    return dataset if isinstance(dataset, type) else None


def is_keras_dataset(value: Any) -> bool:
    """Return True if ``value`` is the class ``keras.utils.PyDataset`` itself."""
    return value is not None and value is keras_class()


# -- a class that Keras takes for a PyDataset


class _Quiet:
    """A first base class of a new class, which prevents ``__init_subclass__`` of the other bases from being called."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        pass


def seen_class(own: type, dataset: type) -> type:
    """Return a subclass of ``own`` that also derives from ``dataset``, the class PyDataset, so that Keras accepts it.
    Return ``own`` itself if it already derives from ``dataset``."""
    if issubclass(own, dataset):
        return own
    seen_as: type | None = own.__dict__.get("_seen_as_dataset")
    if seen_as is None:
        names = {"__module__": own.__module__, "__qualname__": own.__qualname__, "_plain": own}
        seen_as = types.new_class(own.__name__, (_Quiet, own, dataset), {}, lambda space: space.update(names))
        type.__setattr__(own, "_seen_as_dataset", seen_as)
    return seen_as


def reduced_sequence(obj: Any, protocol: Any, not_copied: tuple[str, ...]) -> Any:
    """Return how to pickle the sequence ``obj``, as ``__reduce_ex__`` does, without its attributes in ``not_copied``.
    It is pickled as an instance of the user's class, not of the subclass that :func:`seen_class` has made for Keras."""
    # pickle compares __class__ with the type, which differ here.
    found: Any = object.__reduce_ex__(obj, max(2, protocol))
    if isinstance(found, str):  # the name of a global
        return found
    function, arguments, *rest = found
    if function is copyreg.__newobj__:  # type: ignore[attr-defined]
        function = _new
    if rest and isinstance(rest[0], dict):
        rest[0] = {name: value for name, value in rest[0].items() if name not in not_copied}
    return (_plain(function), tuple(map(_plain, arguments)), *rest)


def _plain(value: Any) -> Any:
    """Return the user's class if ``value`` is a subclass that ``seen_class`` has made of it; else return ``value``."""
    return value.__dict__.get("_plain", value) if isinstance(value, type) else value


def _new(cls: Any, *arguments: Any) -> Any:
    return cls.__new__(cls, *arguments)


def num_batches_of_class(dataset: Any, default: type) -> int | None:
    """Return ``dataset.num_batches`` if the user's class defines this property, and ENDLESS if its value is None.
    Return None if only ``default``, the class Sequence, and Keras's own class define it."""
    of = next(each for each in type(dataset).__mro__ if "num_batches" in each.__dict__ and not is_keras_dataset(each))
    if of is default:
        return None
    number: int | None = dataset.num_batches
    return ENDLESS if number is None else number


def is_endless(length: int) -> bool:
    """Return True if ``length`` is that of an endless data set, or of a part of one."""
    return length >= _LEAST_ENDLESS


# -- the user's own PyDatasets


class Counted:
    """A stand-in, with a length, for a PyDataset that defines ``num_batches`` but no ``__len__``."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    @property
    def name(self) -> str:
        """The name in a saved state: that of the dataset's own class, not of this stand-in."""
        return type(self.dataset).__qualname__

    @property
    def dataset_name(self) -> str:
        """The name in error texts: that of the dataset's own class."""
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
    """A stand-in, with the length ENDLESS (2**62), for a PyDataset that has no end."""

    name = "Endless"

    def __len__(self) -> int:
        return ENDLESS


def counted(source: Any) -> Any:
    """Return ``source``, or a stand-in with a length if it is a PyDataset that is endless or has no ``__len__``."""
    of_keras: Any = keras_class()
    if of_keras is None or not isinstance(source, of_keras) or hasattr(type(source), "_plan"):
        return source
    try:
        number = source.num_batches
    except NotImplementedError:  # not defined: Keras's own loop over it is endless too
        has_loop = type(source).__iter__ is not of_keras.__iter__ or hasattr(source, "__len__")
        return source if has_loop else Endless(source)
    except TypeError:  # from its own __len__, which reports the mistake when it is called
        return source
    if number is None:
        return Endless(source)
    return source if hasattr(source, "__len__") else Counted(source)


class PlainDataset:
    """The base class of the user's PyDatasets in a worker, in place of ``keras.utils.PyDataset``.

    It suffices there, as a worker only asks for batches, and saves the worker the import of Keras and TensorFlow, which
    takes seconds and 300 MB.
    """

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must define __len__")

    @property
    def num_batches(self) -> int:
        """The number of batches in an epoch: the length, as in Keras."""
        return len(self)

    workers = property(lambda self: self._workers)
    use_multiprocessing = property(lambda self: self._use_multiprocessing)
    max_queue_size = property(lambda self: self._max_queue_size)


def plain_dataset() -> type:
    """Return the class that a worker uses for ``keras.utils.PyDataset``: unpickling PyDataset there calls this."""
    return PlainDataset


# -- random generators


def kinds() -> dict[type, Kind]:
    cls = getattr(sys.modules.get(_SEEDS), "SeedGenerator", None)
    return {} if cls is None else {cls: Kind("keras", _seed_one, _save_one, lambda _: None, _record_of)}


def _seed_one(generator: Any, number: int) -> None:
    # 30 bits each: the state counts upwards, and some backends have signed numbers
    state = np.array([number & 0x3FFFFFFF, (number >> 30) & 0x3FFFFFFF], np.int64)
    _assign(generator.state, state.astype(str(generator.state.dtype)))


def _assign(variable: Any, state: Any) -> None:
    # With TensorFlow, assign the inner variable: Keras's own checks of the value take 90 us.
    assign(variable.value if is_plain(variable.value) else variable, state)


def _save_one(generator: Any) -> Callable[[], None]:
    value = generator.state.value
    if hasattr(value, "detach"):  # torch's
        value = value.detach().cpu()
    # Not by keras.ops.convert_to_numpy, which makes numpy 2 warn about TensorFlow's variables at each job.
    return functools.partial(_assign, generator.state, read(value))


def _record_of(generator: Any) -> Any:
    return generator._initial_seed  # None if it was given none


def process_generators() -> list[tuple[str, Any]]:
    """Return [(path, generator)] of Keras's global generator, which is None if it does not exist yet.
    Keras's public function is not used, as it would create the generator."""
    attribute = getattr(sys.modules.get(_STATE), "get_global_attribute", None)
    return [("keras.random", attribute("global_seed_generator") if attribute else None)]


def is_layer(attributes: Any) -> bool:
    """Return True if an object with these ``attributes`` is a Keras layer.
    A layer has random generators only in its ``PARTS_OF_LAYER``, and in attributes that the user's class has set."""
    return "_seed_generators" in attributes and "_layers" in attributes


PARTS_OF_LAYER = "_seed_generators", "_layers"


# -- settings of the program


def backend() -> str | None:
    """Return the name of the backend of the program's Keras, e.g. "torch"; None if Keras is not loaded."""
    config = getattr(sys.modules.get("keras"), "config", None)
    return config.backend() if config is not None else None


def backend_variable(variables: dict[str, str]) -> dict[str, str]:
    """Return {"KERAS_BACKEND": this process's backend}, to be added to the environment ``variables`` of a new process.
    Return {} if Keras is not loaded here, or the new process would use the same backend anyway."""
    found = backend()
    is_said = found is None or found == variables.get("KERAS_BACKEND", tensorflow.NAME)
    return {} if is_said or found is None else {"KERAS_BACKEND": found}


def settings() -> dict[str, dict[str, Any]]:
    config = getattr(sys.modules.get("keras"), "config", None)
    if config is None:
        return {}
    values = {key: getattr(config, key)() for key in _SETTINGS}
    values["dtype_policy"] = values["dtype_policy"].name
    return {"keras": values}


def apply(_: str, values: dict[str, Any]) -> bool:
    config = getattr(sys.modules.get("keras"), "config", None)
    if config is None:  # still being imported
        return False
    for key, value in values.items():
        getattr(config, f"set_{key}")(value)
    return True
