"""Defines and checks the options of a front-end (the result of ``prefetch()`` or ``.map()``).

A front-end made from another one inherits all options that it is not given (by :meth:`Options.but`), and ``output``.
Most options are written twice: in a TypedDict with their types, for callers, and in Options with defaults and checks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias, TypedDict

from workers import limits
from workers.checks import check_bool, check_choice, check_function, check_int, check_seconds
from workers.frameworks import OutputName

ExecutorName: TypeAlias = Literal["process", "thread", "ray"]
Policy: TypeAlias = 'Literal["raise", "skip", "redraw", "retry"] | Callable[[BaseException], str]'

#: The environment variable that overrides the number of workers of all loops that have any, e.g. 0 for debugging.
NB_WORKERS = "WORKERS_NB_WORKERS"

NO_LIMIT = 2**62  # a max_queue_size that no loop reaches


class PrefetchOptions(TypedDict, total=False):
    """The types of the keyword options of :func:`workers.prefetch`; :class:`workers.SequenceMap` explains them."""

    executor: ExecutorName
    executor_options: dict[str, Any] | None
    in_order: bool
    job_timeout: float | None
    max_failures: float | None
    max_retries: int
    max_worker_memory: int | None
    on_error: Policy | None
    retry_wait: float | None
    seed: int | None
    worker_init_fn: Callable[[int], object] | None


class DatasetOptions(PrefetchOptions, total=False):
    """PrefetchOptions, plus the options of :func:`workers.prefetch` that determine the type of a batch."""

    batch_size: int | None
    drop_last: bool
    collate_fn: Callable[[Any], Any] | None
    output: OutputName | None


class OrderOptions(DatasetOptions, total=False):
    """DatasetOptions, plus the options of :func:`workers.prefetch` that choose the samples and their order."""

    weights: Any
    labels: Any
    num_samples: int | None
    replacement: bool
    sampler: Any
    batch_sampler: Any


class MapOptions(PrefetchOptions, total=False):
    """The types of the keyword options of :meth:`workers.Sequence.map`; :class:`workers.SequenceMap` explains them."""

    debug_job_report_timeout: float | None
    max_queue_size: int | None
    as_items: bool


class NamedMapOptions(MapOptions, total=False):
    """MapOptions, plus the options of :meth:`workers.Sequence.map` that may also be given by position."""

    max_jobs_at_once: int | None
    max_queue_size_pin: int | None
    queue_timeout: float | None


class _Inherited:
    """The type of INHERITED, the default value of options that a front-end takes from the one it is made from."""

    def __repr__(self) -> str:
        return "INHERITED"


#: Stands for the option's value in the front-end that this one is made from; if there is none, in Options.
INHERITED: Any = _Inherited()


def _by(check: Callable[[str, Any], Any], none_is_default: bool = False) -> dict[str, Any]:
    """Return the metadata of an option's field in the dataclass Options.

    Args:
        check: called with (name, value); returns the value to use, or raises an error if the value is wrong.
        none_is_default: True if the value None means that the option is not given.
    """
    return {"check": check, "none_is_default": none_is_default}


def _check_later(_: str, value: Any) -> Any:
    return value


def _check_bound(name: str, value: Any) -> int | None:
    return None if value is None else check_int(name, value, 1, "None or an integer >= 1")


def _check_nbytes(name: str, value: Any) -> int | None:
    return None if value is None else check_int(name, value, 1 << 20, "None or a number of bytes, at least 2**20")


def _check_retries(name: str, value: Any) -> int:
    return check_int(name, value, 0)


def _check_failures(name: str, value: Any) -> Any:
    if value is None or (type(value) is float and 0 < value < 1):
        return value
    return check_int(name, value, 0, "None, an integer >= 0, or a share of the samples between 0 and 1")


def _check_executor(name: str, value: Any) -> Any:
    if isinstance(value, str) and value == "auto":
        raise ValueError(
            f'{name} must be "process", "thread" or "ray"; "auto" no longer exists. Leave it out; report() says '
            "where threads would do"
        )
    return check_choice(name, value, ("process", "thread", "ray"))


def _check_policy(name: str, value: Any) -> Any:
    return value if callable(value) else check_choice(name, value, ("raise", "skip", "redraw", "retry"))


def _check_wait(name: str, value: Any) -> Any:
    return check_seconds(name, value, allow_none=False)


@dataclass(frozen=True)
class Options:
    """The options of a front-end, with their defaults and checks; :class:`workers.SequenceMap` explains them."""

    executor: str = field(default="process", metadata=_by(_check_executor))
    executor_options: dict[str, Any] | None = field(default=None, metadata=_by(_check_later))
    in_order: bool = field(default=True, metadata=_by(check_bool))
    job_timeout: float | None = field(default=None, metadata=_by(check_seconds))
    debug_job_report_timeout: float | None = field(default=30.0, metadata=_by(check_seconds))
    max_queue_size: int | None = field(default=None, metadata=_by(_check_bound))
    max_failures: float | None = field(default=None, metadata=_by(_check_failures))
    max_retries: int = field(default=2, metadata=_by(_check_retries))
    max_worker_memory: int | None = field(default=None, metadata=_by(_check_nbytes))
    on_error: Policy = field(default="raise", metadata=_by(_check_policy, none_is_default=True))
    queue_timeout: float = field(default=0.001, metadata=_by(_check_wait))  # as in trw
    retry_wait: float | None = field(default=None, metadata=_by(check_seconds))
    worker_init_fn: Callable[[int], object] | None = field(
        default=None, metadata=_by(check_function, none_is_default=True)
    )

    def but(self, given: dict[str, Any]) -> Options:
        """Return a copy of these options with the values in ``given``, {name: value}, except those that are INHERITED.

        Raises:
            TypeError, ValueError: an option is wrong.
        """
        values = {}
        for each in fields(self):
            value = given.get(each.name, INHERITED)
            if value is not INHERITED and not (value is None and each.metadata["none_is_default"]):
                values[each.name] = each.metadata["check"](each.name, value)
        if "executor" in values:  # inherited executor_options may be for another executor
            values.setdefault("executor_options", None)
        made = replace(self, **values)
        if values.get("max_failures") is not None and made.on_error in ("raise", "retry"):
            raise ValueError('max_failures counts the samples that on_error="skip" or "redraw" loses: give one of them')
        if values.get("retry_wait") and made.on_error in ("raise", "skip", "redraw"):
            raise ValueError('retry_wait is the wait before a retry: give on_error="retry", or a function')
        options = _executor_options(made.executor, made.executor_options)
        return replace(made, executor_options=options)

    @property
    def may_retry(self) -> bool:
        """True if ``on_error`` may run a failed job again, which then needs its input."""
        return callable(self.on_error) or self.on_error == "retry"

    @property
    def least_workers(self) -> int:
        """The minimum number of workers for ``nb_workers="auto"``: 1 if one of the options needs a worker, else 0."""
        return int(self.worker_init_fn is not None or self.job_timeout is not None or not self.in_order)


_NAMES = tuple(each.name for each in fields(Options))


def options_of(front_end: Any) -> Options:
    """Return the options of ``front_end``, read from its attributes, so that new workers use what a user has set."""
    return Options(**{name: vars(front_end)[name] for name in _NAMES})


def in_plan(policy: Policy) -> str:
    """Return ``policy`` as a Plan has it: what jobs do with a sample that raises. "ask": the consumer decides."""
    return "ask" if callable(policy) else "raise" if policy == "retry" else policy


def check_nb_workers(nb_workers: Any) -> int | Literal["auto"]:
    """Check that ``nb_workers`` is "auto" or an integer >= 0. Return it, or what overrides it: see NB_WORKERS."""
    if isinstance(nb_workers, str) and nb_workers == "auto":
        return _by_environment("auto")
    return _by_environment(check_int("nb_workers", nb_workers, 0, 'an integer >= 0 or "auto"'))


def _by_environment(nb_workers: int | Literal["auto"]) -> int | Literal["auto"]:
    """Return ``nb_workers`` if it is 0 or the environment variable is not set; else the value of the variable."""
    said = os.environ.get(NB_WORKERS, "").strip()
    if not said or nb_workers == 0:
        return nb_workers
    if said != "auto" and not said.isdecimal():
        raise ValueError(f'the environment variable {NB_WORKERS} must be an integer >= 0 or "auto", not {said!r}')
    return "auto" if said == "auto" else int(said)


def _executor_options(executor: Any, options: Any) -> dict[str, Any] | None:
    """Check the user's ``executor_options``, and return them: a dict for "ray", None for other executors."""
    if executor == "ray":
        from workers.cluster.connection import check_options

        return check_options({} if options is None else options)
    if options is not None:
        raise ValueError(f'executor_options go with executor="ray", not {executor!r}')
    return None


def bound(nb_workers: Any, max_queue_size: Any, max_queue_size_pin: Any, max_jobs_at_once: Any) -> Any:
    """Return the option ``max_queue_size``, the maximum number of batches ahead of the loop, from these arguments.

    The result is None if the number is chosen while the loop runs, and INHERITED if no argument is given. In the
    library trw, the option is called ``max_queue_size_pin``, and ``max_jobs_at_once`` is the number per worker.
    """
    per_worker = 0
    if max_queue_size_pin is not None:
        max_queue_size_pin = check_int("max_queue_size_pin", max_queue_size_pin, 1, "None or an integer >= 1")
    if max_jobs_at_once is not None:
        per_worker = check_int("max_jobs_at_once", max_jobs_at_once, 0, "None or an integer >= 0")
    if max_queue_size_pin is max_jobs_at_once is None or not (max_queue_size is INHERITED or max_queue_size is None):
        return max_queue_size
    if max_queue_size_pin is not None:
        return max_queue_size_pin
    number = limits.cores() if nb_workers == "auto" else max(nb_workers, 1)
    return per_worker * number if per_worker else NO_LIMIT
