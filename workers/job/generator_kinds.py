"""Seeds and saves numpy's and Python's random generators, and finds out which ones were made from the same seed."""

from __future__ import annotations

import functools
import hashlib
import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from workers import frameworks
from workers.frameworks import Kind


def _seed_bits(bits: Any, number: int) -> None:
    bits.state = type(bits)(number).state


def _save_bits(bits: Any) -> Callable[[], None]:
    return functools.partial(setattr, bits, "state", bits.state)


def _bits_state(bits: Any) -> Any:
    return bits.state


#: The multipliers of the generators whose step is state -> state * multiplier + increment, modulo 2**128.
_MULTIPLIERS = {"PCG64": 0x2360ED051FC65DA44385DF649FCCF645, "PCG64DXSM": 0xDA942042E4DD58B5}
_FAR = 40  # a generator that is 2**40 draws or more ahead of its seed was moved there on purpose


def _bits_record(bits: Any) -> Any:
    generate = getattr(getattr(bits, "seed_seq", None), "generate_state", None)
    if generate is None:
        return None
    return type(bits).__qualname__, generate(4).tolist(), _apart(bits)


def _apart(bits: Any) -> Any:
    """Return a value that differs between bit generators of one seed if a program has moved them apart on purpose.
    Programs do so by ``advance`` or by loading a state; ordinary draws keep the value. Return None if it is unknown."""
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
    """Return how many draws lead from state ``start`` of a PCG64 generator to state ``now``.
    Each step of the loop finds one bit of the number."""
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


def _none(generator: Any) -> None:
    """Return None, as this kind of generator does not keep the seed that it was made from."""


def bits_of(generator: Any) -> Any:
    """Return the bit generator that a numpy ``Generator`` or ``RandomState`` draws from; None for other generators."""
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator
    return generator._bit_generator if isinstance(generator, np.random.RandomState) else None


def origins(kind: Kind, generator: Any) -> tuple[bytes, ...]:
    """Return digests of the seed that ``generator`` was made from, if it keeps that seed, and of its present state.
    Two generators with a digest in common have the same origin: they were made to draw the same numbers."""
    found = ("record", kind.record(generator)), ("state", kind.state(generator))
    return tuple(
        hashlib.blake2b(pickle.dumps((kind.family, *each)), digest_size=16).digest()
        for each in found
        if each[1] is not None
    )


def kinds_loaded() -> dict[type, Kind]:
    """Return {class of random generators: how to seed and save them}, for numpy, Python and the loaded frameworks."""
    kinds: dict[type, Kind] = {
        np.random.Generator: Kind("numpy", _seed_numpy, _save_numpy, _numpy_state, _numpy_record),
        np.random.BitGenerator: Kind("numpy", _seed_bits, _save_bits, _bits_state, _bits_record),
        np.random.RandomState: Kind(
            "legacy", _seed_legacy_numpy, _save_legacy_numpy, _legacy_numpy_state, _legacy_numpy_record
        ),
        random.Random: Kind("python", _seed_python, _save_python, _python_state, _none),
    }
    for others in frameworks.asked("kinds"):
        kinds |= others
    return kinds
