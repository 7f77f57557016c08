"""Keys of the streams that a job draws from in threads of its own."""

from __future__ import annotations

import hashlib
from typing import Any, TypeAlias

from workers.checks import short

Key: TypeAlias = "int | str | tuple[Key, ...]"


def encode(key: Any) -> bytes:
    """``key`` as bytes: equal for equal keys, and others for others.

    Raises:
        TypeError: it is no integer, string, or tuple of these.
    """
    if isinstance(key, str):
        text = key.encode("utf-8", "surrogatepass")
        return b"s%d:%b" % (len(text), text)
    if isinstance(key, tuple):
        return b"(%b)" % b"".join(map(encode, key))
    if isinstance(key, bool) or not hasattr(type(key), "__index__") or (hasattr(key, "shape") and key.shape):
        raise TypeError(
            f"the key of current_rng(key) must be an integer, a string, or a tuple of these, not {short(key)} "
            f"({type(key).__name__}): what tells the pieces of a job's work apart, such as the number of a sample"
        )
    return b"i%d;" % int(key.__index__())


def hashed(seed: int, key: bytes) -> tuple[int, int]:
    """128 bits of a seed and a key."""
    digest = hashlib.blake2b(key, digest_size=16, key=seed.to_bytes(8, "little")).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
