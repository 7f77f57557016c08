"""How a pass went."""

from __future__ import annotations

import time
from collections.abc import Iterable

from workers.sequence.looks import Fact, Looks, count, named


class Metadata(Looks):
    """Statistics of the pass that is being read. Source: ``trw.train.sequence_map.Metadata``.

    Attributes:
        nb_batches: batches delivered.
        time_to_get_next_batch: seconds the consumer waited for them.
        time_processing: seconds the jobs took, in all workers together.
        time_pinning: seconds from when a batch was received until the consumer took it.
        time_start: when the pass began (``time.perf_counter()``).
        pin_queue_size: sum, over the batches, of how many others were ready when the consumer asked.
    """

    def __init__(self) -> None:
        self.time_to_get_next_batch = 0.0
        self.nb_batches = 0
        self.time_processing = 0.0
        self.time_pinning = 0.0
        self.time_start = time.perf_counter()
        self.pin_queue_size = 0

    def _shown_facts(self) -> Iterable[Fact]:
        yield count(self.nb_batches, "batch", "batches")
        yield named("waited", f"{self.time_to_get_next_batch:.3g} s")
        yield named("in jobs", f"{self.time_processing:.3g} s")

    def in_words(self) -> str:
        """As in: 200 batches in 4.1 s (48.8 a second); the loop waited 12.0% of it."""
        seconds = max(time.perf_counter() - self.time_start, 1e-9)
        rate = self.nb_batches / seconds
        batches = f"{self.nb_batches:,} batches in {seconds:.3g} s ({rate:.4g} a second)"
        return f"{batches}; the loop waited {self._share_waited():.1%} of it"

    def _share_waited(self) -> float:
        """What part of the pass, up to now, the consumer waited: 0 to 1."""
        return min(1.0, self.time_to_get_next_batch / max(1e-9, time.perf_counter() - self.time_start))

    def note_job(self, job_ns: int) -> None:
        """A job was run for ``job_ns``."""
        self.time_processing += job_ns / 1e9
