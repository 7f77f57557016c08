"""The seed of what was given none: a function of how the program has seeded its global generators.

Who seeds the program (``np.random.seed(0)``, ``random.seed(0)``, ``torch.manual_seed(0)``, ``tf.random.set_seed(0)``,
``keras.utils.set_random_seed(0)``) seeds all of it, one of these being enough. numpy, torch and TensorFlow show whether
they were seeded. Python's ``random`` does not: it counts where none of the others was, and has the system's entropy
unless the program has seeded it. No generator is advanced.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from typing import Any

from workers import frameworks

from . import process_generators
from .context import current_stream
from .stream import MAX_SEED

_numbers = itertools.count()  # of the seeds drawn so far, so that no two are the same


def draw_seed() -> int:
    """The next seed: a function of the states of the program's global generators, and of how many were drawn. In a job,
    of that job."""
    stream = current_stream()
    if stream is not None:
        return stream.draw_seed()
    states = [*_of_numpy(), *(each for each in frameworks.asked("seed_of_program") if each is not None)] or [
        random.getstate()
    ]
    digest = hashlib.blake2b(repr((next(_numbers), states)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & MAX_SEED


def _of_numpy() -> list[Any]:
    return [process_generators.numpy_words()] if process_generators.is_numpy_seeded() else []
