"""Computes single elements of random permutations of any size, in bounded memory.

``Permutation(n)`` is a family of permutations of 0 .. n-1, one for each key, evaluated only at the positions asked for.
If n is at most ``sorted_up_to``, a permutation is a uniform shuffle, made by sorting random numbers. If n is larger, it
is a Feistel network::

    position = L * 2**m + R        L in 0 .. a-1, R in 0 .. 2**m - 1, both about sqrt(n) values
    six rounds, in turn:           L = (L + f(R)) mod a        R = R xor f(L)

Each round can be undone, so the network is a bijection of the a * 2**m >= n positions, whatever f is. A result of n or
more goes through the network again until it is below n ("cycle walking"). This is rare, as a * 2**m - n < 2**m.

Source: Black and Rogaway, "Ciphers with Arbitrary Finite Domains" (generalised Feistel, cycle walking).
"""

from __future__ import annotations

import sys
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

#: Up to this n, sorting n random numbers is as fast as the network's rounds on one batch (about 30 us).
SORTED_UP_TO = 1024

# With four or five rounds, positions that differ only in L keep their distance twice as often as by chance; with six
# they do not.
_NUM_ROUNDS = 6


def _constant(value: int) -> NDArray[np.uint64]:
    """Return ``value`` as a 0-d array, the fastest operand for numpy (0.5 us; a scalar takes 0.9, an int 1.2)."""
    return np.array(value, np.uint64)


_WEYL = _constant(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: spreads neighbouring numbers
_MIX_1 = _constant(0xFF51AFD7ED558CCD)  # murmur3's finaliser
_MIX_2 = _constant(0xC4CEB9FE1A85EC53)
_32 = _constant(32)


def _round_keys(key: tuple[int, ...]) -> NDArray[np.uint64]:
    """Return six 64-bit numbers, one for each round of the Feistel network. They are a hash of ``key``."""
    return np.frombuffer(blake2b(repr(key).encode(), digest_size=8 * _NUM_ROUNDS).digest(), "<u8")


def _mixed(half: NDArray[np.uint64], round_key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Compute the round function of the Feistel network: 64 bits for each item of ``half``, the upper 32 well mixed."""
    mixed = half * _WEYL
    mixed += round_key
    mixed *= mixed >> _32  # times its own upper half: as good here as a finaliser, in fewer calls
    return mixed


class Permutation:
    """Random permutations of 0 .. n-1, one for each key, as a function of (positions, key) in O(len(positions)).

    Args:
        n: the number of elements, 1 to 2**63 - 1.
        sorted_up_to: up to this n, a permutation is a uniform shuffle, in O(n log n).

    Example:
        >>> Permutation(5)(np.arange(5, dtype=np.uint64), (1, 0)).tolist()
        [0, 2, 4, 3, 1]
    """

    def __init__(self, n: int, sorted_up_to: int = SORTED_UP_TO) -> None:
        if not 1 <= n <= sys.maxsize:
            raise ValueError(f"n must be 1 to {sys.maxsize}, not {n}")
        self.n = n
        self.sorted_up_to = sorted_up_to
        self.is_sorted = n <= sorted_up_to
        if self.is_sorted:
            self._numbers = np.arange(n, dtype=np.uint64) * _WEYL
            return
        right_bits = (n - 1).bit_length() // 2
        left = -(-n >> right_bits)  # n / 2**right_bits, rounded up
        self._n = _constant(n)
        self._left = _constant(left)
        self._right_bits = _constant(right_bits)
        self._right_mask = _constant((1 << right_bits) - 1)
        self._to_right = _constant(64 - right_bits)
        self._exact = left << right_bits == n

    def __reduce__(self) -> tuple[type[Permutation], tuple[int, int]]:
        return type(self), (self.n, self.sorted_up_to)

    def __call__(self, positions: NDArray[np.uint64], key: tuple[int, ...]) -> NDArray[np.int64]:
        """Return the elements at ``positions`` of the permutation that belongs to ``key``.

        Args:
            positions: uint64, each below n.
            key: Python ints. Each key has its own permutation.

        Returns:
            int64, of the shape of ``positions``.
        """
        if self.is_sorted:
            return self.shuffled(key)[positions]
        round_keys = _round_keys(key)
        values = self._network(positions, round_keys)
        if not self._exact:
            outside = values >= self._n
            while np.count_nonzero(outside):
                values[outside] = self._network(values[outside], round_keys)
                outside = values >= self._n
        return values.view(np.int64)

    def shuffled(self, key: tuple[int, ...]) -> NDArray[np.int64]:
        """Return the whole permutation of 0 .. n-1 that belongs to ``key``, for n <= ``sorted_up_to``.
        It is the sorting order of n random numbers. They are distinct, because mixing is a bijection."""
        numbers = self._numbers + _round_keys(key)[0, ...]
        numbers ^= numbers >> _32
        numbers *= _MIX_1
        numbers ^= numbers >> _32
        numbers *= _MIX_2
        return numbers.argsort()

    def _network(self, positions: NDArray[np.uint64], round_keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left = positions >> self._right_bits
        right = positions & self._right_mask
        for i in range(0, _NUM_ROUNDS, 2):
            mixed = _mixed(right, round_keys[i, ...])
            mixed >>= _32  # so that the sum stays below 2**64
            mixed += left
            mixed %= self._left
            left = mixed
            mixed = _mixed(left, round_keys[i + 1, ...])
            mixed >>= self._to_right
            right ^= mixed
        left <<= self._right_bits
        left |= right
        return left


@lru_cache(16)
def permutation(n: int) -> Permutation:
    """Return ``Permutation(n)``, cached for the last few n: making one takes longer than evaluating one position."""
    return Permutation(n)
