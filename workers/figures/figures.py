"""All figures of a front-end."""

from __future__ import annotations

from .loop import LoopFigures
from .pool import PoolFigures


class Figures:
    """For as long as the front-end lives, whatever pools it has."""

    def __init__(self) -> None:
        self.loop = LoopFigures()
        self.pool = PoolFigures()
        self.choices: list[str] = []  # what nb_workers="auto" did, and why; the last ones
