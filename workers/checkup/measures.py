"""Makes findings of figures: shapes, times, memory, what workers open, and how many workers a step needs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from workers import limits
from workers.batch.nodes import leaves
from workers.report.pool import PoolFigures
from workers.report.report import Report
from workers.report.units import count, nbytes, seconds, share

from .findings import Finding
from .probe import JobRecord

_MOST_LEAVES = 12
_COMPUTES = 0.5  # share of a job's time in which it has or wants a core; above this, more workers need more cores
_MANY_THREADS = 2  # for each core


def of_shapes(batches: list[Any]) -> Iterator[Finding]:
    """Yield the finding on the arrays and values in ``batches``, and a warning of dtypes that vary."""
    found: dict[str, list[Any]] = {}
    for batch in batches:
        for path, leaf in leaves(batch, path="batch"):
            found.setdefault(path, []).append(leaf)
    told = [f"{path}: {_kinds(values, len(batches))}" for path, values in found.items()]
    more = f", and {len(told) - _MOST_LEAVES} more" if len(told) > _MOST_LEAVES else ""
    yield Finding("shapes", "fact", f"{', '.join(told[:_MOST_LEAVES])}{more}.")
    for path, values in found.items():
        dtypes = {str(each.dtype) for each in values if isinstance(each, np.ndarray)}
        if len(dtypes) > 1:
            text = f"The dtype of {path} varies from batch to batch: {', '.join(sorted(dtypes))}."
            yield Finding("shapes", "warning", text, "Convert it with astype(...) before the batch is returned.")


def _kinds(values: list[Any], number: int) -> str:
    kinds: dict[tuple[str, int], list[tuple[int, ...]]] = {}
    for value in values:
        is_array = isinstance(value, np.ndarray)
        kind = (str(value.dtype), value.ndim) if is_array else (type(value).__name__, -1)
        kinds.setdefault(kind, []).append(value.shape if is_array else ())
    told = [name if num_axes < 0 else f"{name} {_axes(shapes)}" for (name, num_axes), shapes in kinds.items()]
    return " or ".join(told) + (f" (in {len(values)} of {number} batches)" if len(values) < number else "")


def _axes(shapes: list[tuple[int, ...]]) -> str:
    """Return a shape with the range of each axis that varies: ``(20 to 32, 28, 28)``."""
    ranges = [(min(sizes), max(sizes)) for sizes in zip(*shapes, strict=True)]
    told = [f"{low}" if low == high else f"{low} to {high}" for low, high in ranges]
    return f"({', '.join(told)}{',' if len(told) == 1 else ''})"


def of_times(report: Report, figures: PoolFigures) -> Iterator[Finding]:
    """Yield the findings on a job's time and its stages, and on a worker's memory, by the report of a loop."""
    total = sum(spread.total for spread in report.stages.values())
    stages = [f"{name} {share(spread.total / total)}" for name, spread in report.stages.items() if spread.total]
    functions = [f"{name} {seconds(use.seconds)} a call" for name, use in report.functions.items()]
    parts = [f"{name} {share(part)}" for name, part in report.parts.items()]
    computes = _computes(figures)
    text = f"A job takes {seconds(report.job.median)} in a worker"
    text += f" (99th percentile {seconds(report.job.p99)})" if report.job.p99 > 1.2 * report.job.median else ""
    text += "" if computes is None else f", and computes in {share(computes)} of that time"
    for what, told in (("Stages", stages), ("Functions", functions), ("Parts", parts)):
        text += f". {what}: {', '.join(told)}" if told else ""
    yield Finding("time", "fact", f"{text}.")
    memory = [each.nbytes for each in report.workers if each.nbytes]
    if memory:
        of_all = f", {count(len(memory), 'worker')} {nbytes(sum(memory))}" if len(memory) > 1 else ""
        text = f"A worker has {nbytes(max(memory))} of memory of its own{of_all}. Shared arrays count once in all."
        yield Finding("memory", "fact", text)


def of_workers(report: Report, figures: PoolFigures, step_s: float) -> Finding:
    """Return the finding on how many workers deliver a batch every ``step_s``, as the training asks for them."""
    job_s, cores = report.job.median, limits.cores()
    number = max(1, math.ceil(job_s / step_s))
    text = f"{count(number, 'worker')} would keep steps of {seconds(step_s)} fed: a job takes {seconds(job_s)}."
    computes = _computes(figures)
    if computes is not None and computes > _COMPUTES and number * computes > cores:
        able = f"{count(cores, 'core')} can deliver a batch every {seconds(job_s * computes / cores)} at best"
        text += f" But jobs compute {share(computes)} of the time, and this machine's {able}."
        return Finding("workers", "warning", text, "Make jobs faster, put .cache() behind what is the same each epoch.")
    return Finding("workers", "fact", text)


def _computes(figures: PoolFigures) -> float | None:
    return min(1.0, figures.cores.had / figures.cores_of_ns) if figures.cores_of_ns else None


def of_first_batch(first_s: float, later_s: float, nb_workers: int) -> Finding:
    """Return the finding on what the first batch of an epoch costs: of the first one, and of later ones."""
    text = (
        f"The first batch of the first epoch comes after {seconds(first_s)}, in which {count(nb_workers, 'worker')} "
        f"start; that of a later epoch after {seconds(later_s)}."
    )
    return Finding("first batch", "fact", text)


def of_opened(records: list[JobRecord], nb_workers: int) -> Iterator[Finding]:
    """Yield the findings on files, connections and threads that jobs open in a worker, and leave open."""
    by_worker: dict[int | None, list[JobRecord]] = {}
    for record in records:
        by_worker.setdefault(record.worker, []).append(record)
    for of_worker in by_worker.values():
        new = [_new_files(record) for record in of_worker]
        if len(new) > 2 and all(new):
            text = f"Each job leaves a file open, such as {new[-1][0]}; a process may have {limits.descriptors():,}."
            yield Finding("opens", "warning", text, "Open files in a with statement, or once, and keep them in self.")
            return
    most = max(by_worker.values(), key=lambda of: sum(len(_new_files(record)) for record in of), default=[])
    files = sorted({file for record in most for file in _new_files(record)})
    ends = [(of_worker[0].before, of_worker[-1].after) for of_worker in by_worker.values()]
    connections = max((after.num_connections - before.num_connections for before, after in ends), default=0)
    threads = max((after.num_threads - before.num_threads for before, after in ends), default=0)
    told = [f"{count(len(files), 'file')} ({', '.join(files[:3])})"] if files else []
    told += [count(connections, "connection")] if connections > 0 else []
    told += [count(threads, "thread")] if threads > 0 else []
    if not told:
        yield Finding("opens", "fact", "Jobs leave no file, connection or thread open in a worker.")
        return
    text = f"Jobs of a worker open {' and '.join(told)}, and keep them."
    if threads * nb_workers > _MANY_THREADS * limits.cores():
        text += (
            f" With {count(nb_workers, 'worker')}, {count(limits.cores(), 'core')} have {threads * nb_workers} threads."
        )
        instead = "Limit them in worker_init_fn, e.g. torch.set_num_threads(1), or by OMP_NUM_THREADS=1."
        yield Finding("opens", "warning", text, instead)
    else:
        yield Finding("opens", "fact", text)


def _new_files(record: JobRecord) -> list[str]:
    before, after = record.before.files, record.after.files
    return [path for descriptor, path in after.items() if before.get(descriptor) != path]
