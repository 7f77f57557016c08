"""What the workers work on, in Ray's object store: each piece of memory once, and once on each node that has asked."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np


class Store:
    """Of one executor. ``put`` puts an array into the object store: its reference."""

    def __init__(self, put: Any) -> None:
        self._put = put
        self.replica = 0  # the number of what the workers work on, which every job names
        self._stored: dict[int, tuple[Any, int, Any]] = {}  # {id of a piece: (it, its checksum, its reference)}

    def reference(self, piece: Any) -> Any:
        """Of what the piece holds. What has changed in place is another object, once that was asked for."""
        known = self._stored.get(id(piece))
        if known is None:
            content = np.frombuffer(piece.bytes, np.uint8)
            known = self._stored[id(piece)] = piece, zlib.crc32(piece.bytes), self._put(content)
        return known[2]

    def keep(self, pieces: Iterable[Any]) -> None:
        """Let go of all others: from now on the workers work on these, as another replica."""
        self.replica += 1
        kept = set(map(id, pieces))
        self._stored = {key: stored for key, stored in self._stored.items() if key in kept}

    def has_changed(self) -> bool:
        """Whether a piece holds something else than when it was stored. Takes 1 s for some GB."""
        changed = [key for key, (piece, then, _) in self._stored.items() if zlib.crc32(piece.bytes) != then]
        for key in changed:
            del self._stored[key]
        return bool(changed)
