"""Writes the error texts and log lines of the engine, such as why a job was given up, or where a worker is stuck."""

from __future__ import annotations

import signal

from workers import limits
from workers.batch.memory_limit import DoesNotFit, available_nbytes
from workers.errors import JobTimeoutError, WorkerDiedError, WorkerError, WorkerStartError, add_note
from workers.limits import Limit

from .bounds import QueueLoad
from .executor import Death, Stuck


def overdue(stuck: Stuck) -> str:
    """Return why a stuck worker is ended, e.g. ``job_timeout = 5 s`` or ``did not begin its jobs for 31 s``."""
    if stuck.job_timeout_s is not None:
        return f"job_timeout = {stuck.job_timeout_s:g} s"
    return f"did not begin its jobs for {stuck.unbegun_s:.0f} s"


def how(death: Death) -> str:
    """Return how a worker ended, e.g. ``killed by SIGKILL`` or ``exited with code 3``, or why the engine ended it."""
    if death.stuck is not None:
        return overdue(death.stuck)
    if death.how:
        return death.how
    if death.exit_code is None:
        return "killed with its server"
    if death.has_hung_up:
        return "ended because its file descriptors were closed"
    if death.exit_code >= 0:
        return f"exited with code {death.exit_code}"
    if death.exit_code == -signal.SIGBUS:
        told = "; ".join(death.shortened) or "usual cause: reading past the end of a mapped file that was truncated"
        return f"killed by SIGBUS ({told})"
    try:
        return f"killed by {signal.Signals(-death.exit_code).name}"
    except ValueError:
        return f"killed by signal {-death.exit_code}"


def given_up(epoch: int, index: int, deaths: int, causes: list[Death], load: QueueLoad) -> WorkerError:
    """Return the error for a batch that is given up because its job has ended ``deaths`` workers.
    ``causes`` records these deaths. ``load``, what the pool may hold in memory, is for advice if memory ran out."""
    last = causes[-1]
    where = f"batch {index} of epoch {epoch}"
    if all(death.stuck is not None and death.stuck.job_timeout_s is not None for death in causes):
        return JobTimeoutError(
            f"{where} took longer than {how(last)} in each of {deaths} attempts. Raise job_timeout, or find out why "
            f"it hangs. Its stack at the last timeout:\n{last.stack or '(none)'}"
        )
    is_killed = last.stuck is None and (last.exit_code is None or last.exit_code < 0 or last.has_hung_up)
    ended = f"was {how(last)}" if is_killed else how(last)
    if last.how:  # on another machine
        return WorkerDiedError(f"a worker was {last.how} in {where}, for the {_ordinal(deaths)} time. {last.stack}")
    text = f"Worker process {last.pid} {ended} in {where}, for the {_ordinal(deaths)} time. "
    limit, available = limits.memory(), available_nbytes()
    max_rss = max(death.max_rss for death in causes)
    text += f"It held up to {_mb(max_rss)}"
    text += f" of {_mb(limit.most)} ({limit.source})" if limit is not None else ""
    text += f"; {_mb(max(0, available))} are available now. " if available is not None else ". "
    if last.has_hung_up:
        text += (
            "A job has closed file descriptors that it did not open, for example by os.closerange(): close only those "
            "that it has opened."
        )
    elif is_killed and last.exit_code == -signal.SIGKILL:
        text += f"The likely cause is the out-of-memory killer: {what_to_lower(max_rss, load, limit)}."
    elif last.stack:
        text += f"Its stack:\n{last.stack}"
    else:
        text += "Something in the job ended its process."
    return WorkerDiedError(text)


def what_to_lower(max_rss: int, load: QueueLoad, limit: Limit | None) -> str:
    """Return a text that advises which setting to lower: the one that costs the most memory.
    The costs are estimated from ``max_rss`` (of the killed worker), the pool's ``load`` and the memory ``limit``."""
    num_workers, num_batches, batch_nbytes = load
    queue = num_batches * batch_nbytes
    own = max(0, max_rss - queue // num_workers)  # without the worker's own batches, which count as its memory
    batches = f"{num_batches} batches of {_mb(batch_nbytes)}, {_mb(queue)} in all"
    is_one_too_much = limit is not None and own + batch_nbytes > limit.most // 2
    if queue > num_workers * own and num_batches > 1 and not is_one_too_much:
        return f"lower max_queue_size, which allows {batches}, ahead of the loop"
    if num_workers > 1 and not is_one_too_much:
        return f"lower nb_workers, as {num_workers} workers hold up to {_mb(own)} each"
    return f"make the batches smaller, as one job alone took up to {_mb(max(own, batch_nbytes))}"


def waits_for_memory(epoch: int, index: int, error: DoesNotFit, load: QueueLoad) -> str:
    """Return the log line for a batch that did not fit into memory, and waits until the loop releases others."""
    return (
        f"batch {index} of epoch {epoch} does not fit into memory now: {error}. It waits until the loop releases "
        f"others. At most {load.num_batches} batches are computed ahead of the loop; with a smaller max_queue_size, "
        "fewer have to wait"
    )


def does_not_fit(
    epoch: int, index: int, cause: DoesNotFit, held: int, load: QueueLoad, limit: Limit | None, available: int | None
) -> MemoryError:
    """Return the error for a batch that does not fit into memory, though no other batch is ahead of the loop.

    Args:
        cause: the job's error, which says how many bytes did not fit.
        held: how many bytes of batches the loop still holds.
        limit, available: the limit on memory, and the bytes that are left; None if unknown.
    """
    text = f"batch {index} of epoch {epoch}: {cause.nbytes:,} bytes of shared memory do not fit"
    text += f" into the {_mb(max(0, available))} that are left" if available is not None else ""
    text += f" of {_mb(limit.most)} ({limit.source})" if limit is not None else ""
    text += ", though no other batch is ahead of the loop. "
    if limit is not None and cause.nbytes > limit.most // 2:
        text += "Make the batches smaller"
    elif held and held + max(0, available or 0) >= cause.nbytes:
        text += f"The loop holds batches of {_mb(held)} in all: release them earlier, or make the batches smaller"
    elif load.num_workers > 1:
        text += f"Lower nb_workers (it is {load.num_workers}), or make the batches smaller"
    else:
        text += "Make the batches smaller"
    error = MemoryError(text)
    error.__cause__ = cause.__cause__
    for note in getattr(cause, "__notes__", ()):
        add_note(error, note)
    return error


def _mb(nbytes: int) -> str:
    """Return a size in bytes as text, in MB (``31 MB``), or from 10 GB on in GB (``23.5 GB``)."""
    return f"{nbytes >> 20:,} MB" if nbytes < 10 << 30 else f"{nbytes / (1 << 30):.1f} GB"


def not_started(times: int, last: str, stack: str) -> WorkerStartError:
    """Return the error for a pool in which ``times`` workers in a row ended before they could take a job.
    Its text says how the ``last`` one ended, and a note shows the ``stack`` of this worker, unless it is empty."""
    error = WorkerStartError(
        f"{times} workers in a row ended before they could take a job, the last one {last}. The likely cause "
        "is a lack of memory, or an import by the Sequence's module that ends or crashes the process."
    )
    if stack:
        add_note(error, stack)
    return error


def too_few_processes(what: str, reason: str) -> WorkerStartError:
    """Return the error for processes or threads that could not be started.
    Its text begins with ``what``, e.g. "8 workers cannot be started", and with ``reason``, the system's error."""
    if reason.endswith("ulimit -n)"):
        return WorkerStartError(f"{what}: {reason}. Lower nb_workers, close files, or raise the limit.")
    allowed = " and ".join(f"{limit.most:,} by {limit.source}" for limit in limits.processes())
    return WorkerStartError(
        f"{what}: {reason}. Allowed are {allowed or 'as many as there is memory for'}; threads and other "
        "processes count too. Lower nb_workers, or raise the limit."
    )


def too_few_workers(asked: int, started: int, reason: str) -> WorkerStartError:
    """Return the error for a pool that could start only ``started`` of ``asked`` workers, because of ``reason``."""
    return too_few_processes(f"{asked} workers were asked for, {started or 'none'} could be started", reason)


def _ordinal(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")


def stalled(
    worker: int, pid: int | None, place: tuple[int, int] | None, seconds: float, stack: str, timeout: float | None
) -> str:
    """Return the log line for a worker that has been in one job, or in loading the sequence, for ``seconds``.
    ``place`` is the (epoch, index) of the job's batch, None for loading; ``timeout`` is the option job_timeout."""
    process = f"worker {worker}" + (f" (process {pid})" if pid else "")
    state = _process_state(pid)
    what, then = "the loading of the sequence", "The engine waits for it."
    if place is not None:
        epoch, index = place
        what = f"batch {index} of epoch {epoch}" if index >= 0 else "a batch that is no longer needed"
        then = "The engine waits for it, as job_timeout is not set."
        if timeout is not None:
            then = f"It is replaced after {timeout:g} s."
    return (
        f"{process} has been in {what} for {seconds:.0f} s{state}. {then} Its stack:\n{stack or '(it does not answer)'}"
    )


def _process_state(pid: int | None) -> str:
    import psutil

    try:
        return f", its state is {psutil.Process(pid).status()!r}" if pid else ""
    except psutil.Error:
        return ""
