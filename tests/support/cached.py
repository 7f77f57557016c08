"""Items whose making is counted, for tests of caches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from workers import SequenceArray, current_rng

NUMBER = 24


class Load:
    """Makes an item of a number, and notes in a file that it was called."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.path = str(folder / "calls")
        Path(self.path).touch()

    def __call__(self, row: Any) -> Any:
        number = int(row["i"]) if isinstance(row, dict) else int(row)
        with open(self.path, "a") as file:  # appended as a whole
            file.write(f"{number}\n")
        return {"x": np.full((3, 5), number, np.float32), "name": f"item {number}", "raw": b"\0" * number}

    def calls(self) -> list[int]:
        return sorted(map(int, Path(self.path).read_text().split()))


def numbers(**options: Any) -> SequenceArray:
    return SequenceArray({"i": np.arange(NUMBER)}, seed=3, **options)


def noisy(item: Any) -> Any:
    item["x"] += current_rng().random(item["x"].shape, np.float32)  # writes into it
    return item


class Samples:
    """A dataset that reads several samples at once."""

    def __len__(self) -> int:
        return NUMBER

    def __getitem__(self, index: int) -> Any:
        return {"i": index}

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [{"i": index} for index in indices]
