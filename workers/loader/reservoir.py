"""``.reservoir()``: a pool of loaded items that is drawn from many times, and renewed item by item."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workers.checks import check_int
from workers.frameworks.keras import is_endless
from workers.sequence.base import plan_of
from workers.sequence.clock import with_clock
from workers.sequence.derived import source_length
from workers.sequence.position import Position
from workers.sequence.reservoir import Loads, SequenceLoads, draws_of

from .sequence_map import SequenceMap


class Reservoir:
    """The items of ``loads``, a front-end over SequenceLoads, as often as each is drawn from the pool.

    It has only ``__iter__``: the process of the loop reads it, since the pool is there.
    """

    def __init__(self, loads: SequenceMap[Any], draws_per_item: int) -> None:
        self.loads, self.draws_per_item = loads, draws_per_item

    def __len__(self) -> int:
        """Return the number of draws in an epoch."""
        return self._order().number * self.draws_per_item

    def _order(self) -> Loads:
        return with_clock(self.loads._clock, self.loads.source_split._choice)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[Any]:
        return self.begin_at(0, self.loads.epoch, self.loads.seed)

    def begin_at(self, first: int, epoch: int, seed: int) -> Iterator[Any]:
        """Yield the items of the draws of ``epoch`` from number ``first`` on. Only their items are loaded."""
        loads, clock = self.loads, self.loads._clock
        if clock.epoch != epoch:
            with_clock(clock, clock.go_to, loads, epoch)
        draws = draws_of(*self._order(), self.draws_per_item, seed, epoch)
        if first >= len(draws.loads):
            return
        start = int(draws.loads[first:].min())
        clock.load(Position(start))
        items, pool = iter(loads), {}
        num_loaded = start
        for draw in range(first, len(draws.loads)):
            while num_loaded < draws.until[draw]:
                item = next(items)
                if draws.last[num_loaded] >= draw:
                    pool[num_loaded] = item
                num_loaded += 1
                del item
            load = int(draws.loads[draw])
            yield pool[load] if draws.last[load] > draw else pool.pop(load)
        for _ in items:  # to the end of the epoch
            pass

    def _identity(self) -> list[Any]:
        return [type(self).__qualname__, self.loads._plan().identity, self.draws_per_item]

    def close(self) -> None:
        """Stop the workers that load items."""
        self.loads.close()


class SequenceReservoir(SequenceMap[Any]):
    """The draws from a pool of loaded items: see :meth:`Sequence.reservoir`."""

    def __init__(self, source_split: Any, size: int, draws_per_item: int) -> None:
        size, draws_per_item = check_int("size", size, 1), check_int("draws_per_item", draws_per_item, 1)
        plan, name = plan_of(source_split), type(source_split).__name__
        if plan.shard is not None:
            raise TypeError("give each rank a reservoir of its part: sequence[rank::world].reservoir(...), no .shard()")
        chosen = SequenceLoads(source_split, size)
        if chosen._is_length_at_hand() and is_endless(source_length(chosen)):
            raise TypeError(f"{name} has no end: a reservoir holds the items of one epoch, so leave .repeat() out")
        loads = SequenceMap(chosen, 0)
        if loads._has_lists:
            raise TypeError(
                f"an index of {name} may have no item, or several, because a function returns lists, or items that "
                "fail are skipped: a reservoir needs one, so give as_items=False, and leave on_error out"
            )
        super().__init__(Reservoir(loads, draws_per_item), 0, seed=next(iter(plan.seeds), loads.seed))

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.source_split.close()
