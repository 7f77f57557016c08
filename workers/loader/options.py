"""The options of a front-end: their names, types and defaults, and which of them a sequence made from it inherits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

from workers.checks import check_choice, check_function, check_int, check_seconds
from workers.job.task import chain_of
from workers.sequence.derived import SequenceDerived

from .mapped import NO_LIMIT, Mapped

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


default_queue_timeout = 0.001  # seconds, as in trw


class _Inherited:
    """The type of INHERITED."""

    def __repr__(self) -> str:
        return "INHERITED"

    def __reduce__(self) -> str:
        return "INHERITED"


#: The default of an option: as the front-end that this one is made of; else as DEFAULTS.
INHERITED: Any = _Inherited()

DEFAULTS: dict[str, Any] = {
    "debug_job_report_timeout": 30.0,
    "executor": "process",
    "executor_options": None,
    "in_order": True,
    "job_timeout": None,
    "max_queue_size": None,
    "max_retries": 2,
    "on_error": "raise",
    "queue_timeout": default_queue_timeout,
    "worker_init_fn": None,
}


def front_end_of(source: Any) -> Mapped | None:
    """The front-end that ``source`` is, or that it is made from."""
    while isinstance(source, SequenceDerived) and not isinstance(source, Mapped):
        source = source.source_split
    return source if isinstance(source, Mapped) else None


def checked(front: Mapped | None, nb_workers: Any, given: dict[str, Any]) -> dict[str, Any]:
    """All options of DEFAULTS: as ``given``, or where they are INHERITED those of ``front``, or the defaults."""
    defaults = dict(DEFAULTS) if front is None else {name: getattr(front, name) for name in DEFAULTS}
    if given["executor"] is not INHERITED:
        defaults["executor_options"] = None  # they are of another executor
    elif defaults["executor"] == "auto" and nb_workers not in ("auto", 0):
        defaults["executor"] = "process"  # "auto" is about workers that come and go
    options = {name: defaults[name] if value is INHERITED else value for name, value in given.items()}
    for name in ("on_error", "worker_init_fn"):  # None, which would say nothing, is their default
        options[name] = defaults[name] if options[name] is None else options[name]
    check_choice("executor", options["executor"], ("process", "thread", "auto", "ray"))
    options["executor_options"] = _executor_options(options["executor"], options["executor_options"], nb_workers)
    options["in_order"] = bool(check_choice("in_order", options["in_order"], (True, False)))
    if not callable(options["on_error"]):
        check_choice("on_error", options["on_error"], ("raise", "skip"))
    options["max_retries"] = check_int("max_retries", options["max_retries"], 0)
    options["queue_timeout"] = check_seconds("queue_timeout", options["queue_timeout"], allow_none=False)
    for name in ("debug_job_report_timeout", "job_timeout"):
        options[name] = check_seconds(name, options[name])
    options["worker_init_fn"] = check_function("worker_init_fn", options["worker_init_fn"])
    return options


def check_nb_workers(nb_workers: Any) -> int | Literal["auto"]:
    """``nb_workers``, as a front-end takes it."""
    if isinstance(nb_workers, str) and nb_workers == "auto":
        return "auto"
    return check_int("nb_workers", nb_workers, 0, 'an integer >= 0 or "auto"')


def _executor_options(executor: Any, options: Any, nb_workers: Any) -> dict[str, Any] | None:
    """``executor_options``, as ``executor`` takes them with so many workers."""
    if executor == "auto" and nb_workers not in ("auto", 0):
        raise ValueError(f'executor="auto" goes with nb_workers="auto", not {nb_workers}')
    if executor == "ray":
        from workers.cluster.connection import check_options

        return check_options({} if options is None else options)
    if options is not None:
        raise ValueError(f'executor_options go with executor="ray", not {executor!r}')
    return None


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


def check_one_seed(seed: int | None, source: Any) -> int | None:
    """``seed`` of a front-end over ``source``. All functions of a chain run in one job, which has one seed."""
    given = [each._own_seed for each in chain_of(source) if isinstance(each, Mapped) and each._own_seed is not None]
    if seed is not None and given and given[0] != seed:
        raise ValueError(
            f"seed is {seed}, but a map before it was given seed {given[0]}: all functions of a chain draw from one "
            "seed, so give it once, at the end"
        )
    return seed
