"""What the engine must reach, each as a ratio within one round or a bound, with what it reached."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.rounds import Record

PROCESS_PEERS = ("pool", "torch", "torch_tensors", "grain", "keras")


@dataclass(frozen=True)
class Round:
    """The numbers of one round."""

    numbers: dict[tuple[str, str, str], float]  # e.g. {("tiny", "pool", "batches_per_s"): 8094.0}
    num_workers: int

    def __call__(self, job: str, name: str, loader: str = "process") -> float:
        return self.numbers[job, loader, name]

    def best_peer(self, job: str) -> float:
        values = [self.numbers.get((job, peer, "times_serial")) for peer in PROCESS_PEERS]
        return max(value for value in values if value is not None)


@dataclass(frozen=True)
class Target:
    """``value`` of a round must be at least, or at most, ``bound``."""

    text: str
    value: Callable[[Round], float]
    sign: str  # ">=" or "<="
    bound: float

    def is_met(self, values: list[float]) -> bool:
        """Whether the median over the rounds is on the right side."""
        value = statistics.median(values)
        return value >= self.bound if self.sign == ">=" else value <= self.bound


# Loaders are compared by their ratios to the plain loop beside them, so that the drift of the machine cancels.
TARGETS = (
    Target("CPU-heavy, of workers x serial", lambda r: r("cpu_heavy", "times_serial") / r.num_workers, ">=", 0.95),
    Target(
        "CPU-heavy, of as many separate loops",
        lambda r: r("cpu_heavy", "times_serial") / r("cpu_heavy", "times_serial", "separate"),
        ">=",
        0.95,
    ),
    Target("38.5 MB, fresh array, x serial", lambda r: r("large", "times_serial"), ">=", 1.15),
    Target(
        "38.5 MB, fresh array, x the best process-based peer",
        lambda r: r("large", "times_serial") / r.best_peer("large"),
        ">=",
        3,
    ),
    Target("38.5 MB, workers.empty, x serial", lambda r: r("large_empty", "times_serial"), ">=", 3.5),
    Target(
        "4 KB, x Pool.imap",
        lambda r: r("tiny", "times_serial") / r("tiny", "times_serial", "pool"),
        ">=",
        4,
    ),
    Target("first batch of 4 KB, s", lambda r: r("first_batch_tiny", "first_s"), "<=", 0.3),
    Target(
        "CPU-heavy, first batch of a later epoch, of the longest other wait",
        lambda r: r("first_batch", "later_first_ms") / r("first_batch", "other_longest_ms"),
        "<=",
        1,
    ),
    Target("consumer's thread for 38.5 MB, us", lambda r: r("consumer_cost", "thread_us"), "<=", 100),
    Target(
        "consumer's thread for 38.5 MB, of that for 9.6 MB",
        lambda r: r("consumer_cost", "thread_us") / r("consumer_cost_quarter", "thread_us"),
        "<=",
        1.5,
    ),
    Target("private memory of all workers, 400 MB held, MB", lambda r: r("memory", "workers_uss_mb"), "<=", 160),
    Target("the 400 MB in shared memory, times", lambda r: r("memory", "arrays_in_shared_memory"), "<=", 1.2),
)


def reached(records: Iterable[Record], num_workers: int) -> list[tuple[Target, list[float]]]:
    """What was reached in each round, of the targets whose measurements were made."""
    rounds: dict[int, dict[tuple[str, str, str], float]] = {}
    for record in records:
        numbers = rounds.setdefault(record.round, {})
        numbers.update({(record.job, record.loader, name): value for name, value in record.numbers.items()})
    found = []
    for target in TARGETS:
        values = []
        for numbers in rounds.values():
            try:
                values.append(target.value(Round(numbers, num_workers)))
            except (KeyError, ValueError):  # not measured, or no peer that was
                continue
        if values:
            found.append((target, values))
    return found
