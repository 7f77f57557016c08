"""Makes the task that workers run for a sequence, and runs ``sequence[index]`` as a job (computation of a batch)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workers.batch.private import private
from workers.batch.tree import own
from workers.checks import check_index
from workers.frameworks.keras import is_keras_dataset
from workers.job import seeding
from workers.job.task import Task, chain_of, items_of_job, knows_items

from .clock import HOOKS, with_clock
from .epochs import plan_of_epoch

if TYPE_CHECKING:
    from .base import Sequence


def task_of(sequence: Sequence[Any]) -> Task:
    """Return the task that workers run for ``sequence``, with its source, the functions to apply, and its seed."""
    task = sequence._plan().task(sequence.seed)
    task.history, task.private = sequence._live.generators.history, private
    return task


def run_job(
    sequence: Sequence[Any],
    index: int,
    compute: Callable[[], Any],
    epoch: int | None = None,
    seed: int | None = None,
    is_sent: bool = False,
) -> Any:
    """Run ``compute()`` in this process as job ``index``, seeded by (seed, epoch, index), and return its result.

    Args:
        epoch, seed: None for the current ones of ``sequence``.
        is_sent: True if the result will be sent to another process, which copies it; False to copy it here.
    """
    epoch, seed = sequence._clock.epoch if epoch is None else epoch, sequence.seed if seed is None else seed
    stream, job = seeding.Stream(seed, sequence._live.generators, chain_of(sequence)), seeding.Job(epoch, index)
    is_fresh = sequence._makes_fresh_batches
    function = compute if is_sent else lambda: own(compute(), is_fresh)
    return seeding.run_job(stream, job, function, sequence._may_draw())


def job_of_index(sequence: Sequence[Any], index: int, epoch: int | None = None) -> int:
    """Return the number of the job that makes batch ``index`` of ``epoch``, by default the current one."""
    if "source_split" not in sequence.__dict__:  # made from no other sequence: job ``i`` makes batch ``i``
        return index
    plan = plan_of_epoch(sequence)
    return (plan if epoch is None else plan._replace(epoch=epoch)).job(index)


def items_of_index(sequence: Sequence[Any], index: int) -> list[Any]:
    """Return the items (batches or samples) at ``index`` of ``sequence``. Call it within the job of that index."""
    return items_of_job(sequence, plan_of_epoch(sequence).place(index) if knows_items(sequence) else index)


def as_job(getitem: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Wrap ``getitem``, a subclass's ``__getitem__``, so that each call runs as a job, unless a job makes the call."""

    @functools.wraps(getitem)
    def __getitem__(self: Sequence[Any], index: Any) -> Any:
        if isinstance(index, slice):
            return self._sliced(index)
        if seeding.current_job() is not None:
            return getitem(self, index)
        self._check_open()
        look_at_changes(self)
        checked = check_index(index, self)
        compute = functools.partial(getitem, self, checked)
        return with_clock(self._clock, run_job, self, job_of_index(self, checked), compute)

    __getitem__._is_job = True  # type: ignore[attr-defined]
    return __getitem__


def look_at_changes(sequence: Sequence[Any]) -> None:
    """Empty the caches of the chain of ``sequence`` if what they hold has changed: no epoch begins before an index."""
    for each in chain_of(sequence):
        if hasattr(type(each), "_caches") and each._caches():
            each._begin_epoch(sequence._clock.epoch)


def wrap_methods(cls: Any) -> None:
    """Set ``__getitem__``, wrapped by :func:`as_job`, and the hooks as attributes of ``cls``, a subclass of Sequence.

    Each method is that of the first class in ``cls.__mro__`` that defines it. Keras's PyDataset is left out, because it
    may come before Sequence, and its methods would then hide those of Sequence.
    """
    for name in ("__getitem__", *HOOKS):
        of = next(each for each in cls.__mro__ if name in each.__dict__ and not is_keras_dataset(each))
        method = of.__dict__[name]
        if name == "__getitem__" and not hasattr(method, "_is_job"):
            method = as_job(method)
        if getattr(cls, name) is not method:
            setattr(cls, name, method)
