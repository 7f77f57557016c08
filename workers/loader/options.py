"""The options of a front-end: their names and types, and which of them what is made of it has too."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

from workers.checks import check_choice, check_int, short
from workers.sequence.indexed import is_indexed

from .mapped import NO_LIMIT

Executor: TypeAlias = Literal["process", "thread", "auto", "ray"]
Output: TypeAlias = Literal["torch", "jax", "tf"]
Policy: TypeAlias = 'Literal["raise", "skip"] | Callable[[BaseException], str]'

if TYPE_CHECKING:

    class PrefetchOptions(TypedDict, total=False):
        """What :func:`workers.prefetch` takes by name."""

        executor: Executor
        executor_options: dict[str, Any] | None
        seed: int | None
        in_order: bool
        on_error: Policy | None
        job_timeout: float | None
        max_retries: int
        worker_init_fn: Callable[[int], object] | None

    class DatasetOptions(PrefetchOptions, total=False):
        """What it takes by name besides, of which the type of a batch depends."""

        batch_size: int | None
        drop_last: bool
        collate_fn: Callable[[Any], Any] | None
        output: Output | None

    class MapOptions(PrefetchOptions, total=False):
        """What :meth:`Sequence.map` takes by name: see :class:`workers.SequenceMap`."""

        debug_job_report_timeout: float | None
        max_queue_size: int | None
        as_items: bool

    class NamedMapOptions(MapOptions, total=False):
        """And what may also be given by its place."""

        max_jobs_at_once: int | None
        max_queue_size_pin: int | None
        queue_timeout: float | None


#: What is made of a front-end has these as well.
INHERITED = (
    "debug_job_report_timeout",
    "executor",
    "executor_options",
    "in_order",
    "job_timeout",
    "max_queue_size",
    "max_retries",
    "on_error",
    "queue_timeout",
    "worker_init_fn",
)


def check_nb_workers(nb_workers: Any) -> int | Literal["auto"]:
    """``nb_workers``, as a front-end takes it."""
    if isinstance(nb_workers, str) and nb_workers == "auto":
        return "auto"
    return check_int("nb_workers", nb_workers, 0, 'an integer >= 0 or "auto"')


def check_executor(executor: Any, options: Any, nb_workers: Any) -> tuple[Any, dict[str, Any] | None]:
    """``executor`` and ``executor_options``, as a front-end with so many workers takes them."""
    check_choice("executor", executor, ("process", "thread", "auto", "ray"))
    if executor == "auto" and nb_workers not in ("auto", 0):
        raise ValueError(f'executor="auto" goes with nb_workers="auto", not {nb_workers}')
    if executor == "ray":
        from workers.cluster.connection import check_options

        return executor, check_options({} if options is None else options)
    if options is not None:
        raise ValueError(f'executor_options go with executor="ray", not {executor!r}')
    return executor, None


def least_workers(of: Any) -> int:
    """The workers that a front-end with ``nb_workers="auto"`` has always: some things only they can do."""
    return int(of.worker_init_fn is not None or of.job_timeout is not None or not of.in_order)


def bound(nb_workers: int, max_queue_size: Any, max_jobs_at_once: Any, max_queue_size_pin: Any) -> int | None:
    """The bound on batches ahead of the consumer that the three arguments say; None: it is chosen."""
    if max_queue_size is not None:
        return check_int("max_queue_size", max_queue_size, 1, "None or an integer >= 1")
    if max_queue_size_pin is not None:
        return check_int("max_queue_size_pin", max_queue_size_pin, 1, "None or an integer >= 1")
    if max_jobs_at_once is None:
        return None
    per_worker = check_int("max_jobs_at_once", max_jobs_at_once, 0, "None or an integer >= 0")
    return per_worker * max(nb_workers, 1) if per_worker else NO_LIMIT


def check_source(source: Any) -> None:
    """Raise a TypeError if ``source`` can be neither indexed nor iterated."""
    if isinstance(source, type) or not (is_indexed(source) or hasattr(source, "__iter__")):
        raise TypeError(
            "source_split must have __len__ and __getitem__, or __iter__; "
            f"{short(source)} ({type(source).__name__}) has neither"
        )
