"""What is done with a random generator, by its kind."""

from __future__ import annotations

import functools
import hashlib
import pickle
import random
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import tensorflow_draws


class Kind(NamedTuple):
    """What is done with the generators of a class."""

    family: str  # generators of one family may be made of the same seed, to draw the same numbers
    seed: Callable[[Any, int], None]  # to a 62-bit number
    save: Callable[[Any], Callable[[], None]]  # returns what restores its state
    state: Callable[[Any], Any]  # as it stands, to be compared; None: it does not tell what it was made of
    record: Callable[[Any], Any]  # the seed that it was made of, as far as it has that still; None: it has not


def _seed_bits(bits: Any, number: int) -> None:
    bits.state = type(bits)(number).state


def _save_bits(bits: Any) -> Callable[[], None]:
    return functools.partial(setattr, bits, "state", bits.state)


def _bits_state(bits: Any) -> Any:
    return bits.state


#: The multipliers of the generators that count by one: state -> state * multiplier + increment, of 128 bits.
_MULTIPLIERS = {"PCG64": 0x2360ED051FC65DA44385DF649FCCF645, "PCG64DXSM": 0xDA942042E4DD58B5}
_FAR = 40  # bits of the number of draws beyond which somebody must have set the generator apart on purpose


def _bits_record(bits: Any) -> Any:
    generate = getattr(getattr(bits, "seed_seq", None), "generate_state", None)
    if generate is None:
        return None
    return type(bits).__qualname__, generate(4).tolist(), _apart(bits)


def _apart(bits: Any) -> Any:
    """What shows that a bit generator was set apart from others of its seed: to a loaded state, or by ``advance``."""
    name = type(bits).__name__
    if type(bits) not in (np.random.PCG64, np.random.PCG64DXSM, np.random.Philox):
        return None
    now = bits.state["state"]
    if name in _MULTIPLIERS:
        start = type(bits)(bits.seed_seq).state["state"]
        if now["inc"] != start["inc"]:
            return now["inc"]
        return _num_draws(start["state"], now["state"], _MULTIPLIERS[name], now["inc"]) >> _FAR
    return now["key"].tolist(), int(now["counter"][0]) >> _FAR, now["counter"][1:].tolist()


def _num_draws(start: int, now: int, multiplier: int, increment: int) -> int:
    """How many draws lead from state ``start`` to ``now``, found bit by bit."""
    mask, bit, found = 2**128 - 1, 1, 0
    while start != now and bit <= mask:
        if (start ^ now) & bit:
            start = (start * multiplier + increment) & mask
            found |= bit
        increment = (multiplier + 1) * increment & mask
        multiplier = multiplier * multiplier & mask
        bit <<= 1
    return found


def _seed_numpy(generator: Any, number: int) -> None:
    _seed_bits(generator.bit_generator, number)


def _save_numpy(generator: Any) -> Callable[[], None]:
    return _save_bits(generator.bit_generator)


def _numpy_state(generator: Any) -> Any:
    return generator.bit_generator.state


def _numpy_record(generator: Any) -> Any:
    return _bits_record(generator.bit_generator)


def _seed_legacy_numpy(generator: Any, number: int) -> None:
    bits = generator._bit_generator
    if type(bits) is np.random.MT19937:
        generator.seed([number & 0xFFFFFFFF, number >> 32])
    else:  # numpy refuses to seed others
        fresh = type(bits)(number).state
        generator.set_state({**generator.get_state(legacy=False), **fresh, "has_gauss": 0, "gauss": 0.0})


def _save_legacy_numpy(generator: Any) -> Callable[[], None]:
    return functools.partial(generator.set_state, generator.get_state(legacy=False))


def _legacy_numpy_state(generator: Any) -> Any:
    return generator.get_state(legacy=False)


def _legacy_numpy_record(generator: Any) -> Any:
    return _bits_record(generator._bit_generator)


def _seed_python(generator: Any, number: int) -> None:
    generator.seed(number)


def _save_python(generator: Any) -> Callable[[], None]:
    return functools.partial(generator.setstate, generator.getstate())


def _python_state(generator: Any) -> Any:
    return generator.getstate()


def _seed_torch(generator: Any, number: int) -> None:
    generator.manual_seed(number)


def _save_torch(generator: Any) -> Callable[[], None]:
    return functools.partial(generator.set_state, generator.get_state())


def _torch_state(generator: Any) -> Any:
    return generator.get_state().numpy().tobytes()


def _torch_record(generator: Any) -> Any:
    return str(generator.device), generator.initial_seed()


def _seed_tensorflow(generator: Any, number: int) -> None:
    state = np.zeros(generator.state.shape[0], np.int64)
    state[-1] = number  # the key; the counter before it begins at 0
    _assign(generator.state, state)


def _save_tensorflow(generator: Any) -> Callable[[], None]:
    return functools.partial(_assign, generator.state, _read(generator.state))


def _is_plain(variable: Any) -> bool:
    """Whether it is TensorFlow's, on one device. Its raw operations take 20 to 50 us; its methods 120 to 200, which
    each job in the loop's process would pay three times."""
    return type(variable).__name__ == "ResourceVariable"


def _read(variable: Any) -> Any:
    """What it holds, also when it has changed."""
    if _is_plain(variable):
        return sys.modules["tensorflow"].raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)
    return np.array(np.asarray(variable))


def _assign(variable: Any, state: Any) -> None:
    if _is_plain(variable):
        sys.modules["tensorflow"].raw_ops.AssignVariableOp(resource=variable.handle, value=state)
    else:
        variable.assign(state)


def _tensorflow_state(generator: Any) -> Any:
    # No record: what from_seed() is given is where the counter begins, under a key that all share.
    return np.asarray(generator.state).tolist()


def _seed_keras(generator: Any, number: int) -> None:
    # 30 bits each: it counts upwards, and for some backends they are signed
    state = np.array([number & 0x3FFFFFFF, (number >> 30) & 0x3FFFFFFF], np.int64)
    _assign_keras(generator.state, state.astype(str(generator.state.dtype)))


def _assign_keras(variable: Any, state: Any) -> None:
    # On TensorFlow the variable within: Keras's own checks of what is assigned take 90 us.
    _assign(variable.value if _is_plain(variable.value) else variable, state)


def _save_keras(generator: Any) -> Callable[[], None]:
    value = generator.state.value
    if hasattr(value, "detach"):  # torch's
        value = value.detach().cpu()
    # Not by keras.ops.convert_to_numpy, which has numpy 2 warn of TensorFlow's variables, at each job.
    return functools.partial(_assign_keras, generator.state, _read(value))


def _keras_record(generator: Any) -> Any:
    return generator._initial_seed  # None: it was not given one


def _none(generator: Any) -> None:
    """It has no such thing."""


def bits_of(generator: Any) -> Any:
    """The bit generator that one of numpy's generators draws from; None for other generators."""
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator
    return generator._bit_generator if isinstance(generator, np.random.RandomState) else None


def origins(kind: Kind, generator: Any) -> tuple[bytes, ...]:
    """What ``generator`` was made of, in some bytes each: generators that share one of them draw the same numbers."""
    found = ("record", kind.record(generator)), ("state", kind.state(generator))
    return tuple(
        hashlib.blake2b(pickle.dumps((kind.family, *each)), digest_size=16).digest()
        for each in found
        if each[1] is not None
    )


def kinds_loaded() -> dict[type, Kind]:
    """{class: what is done with its objects}, of what is loaded."""
    kinds: dict[type, Kind] = {
        np.random.Generator: Kind("numpy", _seed_numpy, _save_numpy, _numpy_state, _numpy_record),
        np.random.BitGenerator: Kind("numpy", _seed_bits, _save_bits, _bits_state, _bits_record),
        np.random.RandomState: Kind(
            "legacy", _seed_legacy_numpy, _save_legacy_numpy, _legacy_numpy_state, _legacy_numpy_record
        ),
        random.Random: Kind("python", _seed_python, _save_python, _python_state, _none),
    }
    for path, kind in (
        ("torch:Generator", Kind("torch", _seed_torch, _save_torch, _torch_state, _torch_record)),
        (
            f"{_TENSORFLOW}:Generator",
            Kind("tensorflow", _seed_tensorflow, _save_tensorflow, _tensorflow_state, _none),
        ),
        (
            "keras.src.random.seed_generator:SeedGenerator",
            Kind("keras", _seed_keras, _save_keras, _none, _keras_record),
        ),
    ):
        module, name = path.split(":")
        cls = getattr(sys.modules.get(module), name, None)
        if cls is not None:
            kinds[cls] = kind
    return kinds


_TENSORFLOW = "tensorflow.python.ops.stateful_random_ops"
_KERAS = "keras.src.backend.common.global_state"
PATHS_OF_PROCESS = "tf.random.get_global_generator()", "tf.function(jit_compile=True)", "keras.random"


def of_process() -> tuple[Any, ...]:
    """The generators of the whole process that are made when they are first asked for; None: not yet.

    Neither TensorFlow nor Keras has a public way to ask without making one.
    """
    modules = sys.modules
    if _TENSORFLOW not in modules and _KERAS not in modules:
        return ()
    keras = getattr(modules.get(_KERAS), "get_global_attribute", None)
    return (
        getattr(modules.get(_TENSORFLOW), "global_generator", None),
        tensorflow_draws.generator_for_xla,
        keras("global_seed_generator") if keras else None,
    )
