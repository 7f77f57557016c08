"""What a sequence delivers on any workers: none, processes, threads, and those that take over in the middle."""

from __future__ import annotations

from typing import Any

from scripted import have, scripted

from workers import Sequence

WORKERS = [(0, "process"), (1, "process"), (2, "thread"), ("auto", "process")]


def epochs_on(sequence: Any, nb_workers: Any, executor: str, epochs: int = 2) -> list[list[Any]]:
    """The batches of so many epochs; of ``"auto"``, a worker takes over behind the first batch."""
    with sequence.prefetch(nb_workers=nb_workers, executor=executor) as batches:
        if nb_workers == "auto":
            scripted(batches, lambda look: None)
        found: list[list[Any]] = []
        for _ in range(epochs):
            found.append([])
            for batch in batches:
                found[-1].append(batch)
                if nb_workers == "auto" and len(found) == len(found[-1]) == 1:
                    have(batches, 1)
        return found


class Several(Sequence[Any]):
    """Batch ``index`` of several sequences, {name: its batch}: so that one pool computes those of all."""

    def __init__(self, sequences: dict[str, Any]) -> None:
        super().__init__(seed=1)
        self.sequences = sequences

    def __len__(self) -> int:
        return min(map(len, self.sequences.values()))

    def __getitem__(self, index: int) -> Any:
        return {name: sequence[index] for name, sequence in self.sequences.items()}
