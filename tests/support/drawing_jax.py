"""Draws of JAX, by keys made of the job's seeds."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from drawing import Drawing

from workers import current_seed


@jax.jit
def draw_by_key(key: Any) -> Any:
    return jax.random.normal(key, (3,))


class OfJax(Drawing):
    def kinds(self) -> dict[str, Any]:
        return {
            "key": lambda: draw_by_key(jax.random.wrap_key_data(current_seed().astype(np.uint32))),
            "key of an integer": lambda: draw_by_key(jax.random.key(current_seed()[0])),
        }
