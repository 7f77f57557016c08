"""What the engine has to say: why a job was given up, which worker is stuck and where."""

from __future__ import annotations

import signal

from workers.errors import JobTimeoutError, WorkerDiedError, WorkerError, WorkerStartError, add_note

from .executor import Death, Stuck


def overdue(stuck: Stuck) -> str:
    """Why a worker is ended: ``job_timeout = 5 s``, or ``did not begin its jobs for 31 s``."""
    if stuck.job_timeout_s is not None:
        return f"job_timeout = {stuck.job_timeout_s:g} s"
    return f"did not begin its jobs for {stuck.unbegun_s:.0f} s"


def how(death: Death) -> str:
    """How a worker ended: ``killed by SIGKILL``, ``exited with code 3``, or what it was ended for."""
    if death.stuck is not None:
        return overdue(death.stuck)
    if death.exit_code is None:
        return "killed with its server"
    if death.exit_code >= 0:
        return f"exited with code {death.exit_code}"
    try:
        return f"killed by {signal.Signals(-death.exit_code).name}"
    except ValueError:
        return f"killed by signal {-death.exit_code}"


def given_up(epoch: int, index: int, deaths: int, causes: list[Death]) -> WorkerError:
    """The error of a job that ended its worker ``deaths`` times."""
    last = causes[-1]
    where = f"batch {index} of epoch {epoch}"
    if all(death.stuck is not None and death.stuck.job_timeout_s is not None for death in causes):
        return JobTimeoutError(
            f"{where} took longer than {how(last)} in each of {deaths} attempts. Raise job_timeout, or see why it "
            f"hangs; its stack at the last timeout:\n{last.stack or '(none)'}"
        )
    import psutil  # here: it takes longer to import than the rest of this package

    memory = psutil.virtual_memory()
    gigabytes = 1 / (1 << 30)
    is_killed = last.stuck is None and (last.exit_code is None or last.exit_code < 0)
    ended = f"was {how(last)}" if is_killed else how(last)
    text = f"Worker process {last.pid} {ended} in {where}, for the {_ordinal(deaths)} time. "
    text += f"It held up to {last.max_rss >> 20:,} MB of {memory.total * gigabytes:.1f} GB"
    text += f"; {memory.available * gigabytes:.1f} GB are available now. "
    if is_killed and last.exit_code == -signal.SIGKILL:
        text += "Most likely it was the out-of-memory killer: lower nb_workers or max_queue_size."
    elif last.stack:
        text += f"Where it was:\n{last.stack}"
    else:
        text += "Something in the job ended its process."
    return WorkerDiedError(text)


def not_started(times: int, last: str, stack: str) -> WorkerStartError:
    """The error of a pool whose workers end before they can work, ``times`` in a row; ``last`` is how."""
    error = WorkerStartError(
        f"{times} workers in a row ended before they could take a job, the last one {last}. The likely causes: "
        "memory is short, or an import of the Sequence's module ends or crashes the process."
    )
    if stack:
        add_note(error, stack)
    return error


def _ordinal(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")


def stalled(
    worker: int, pid: int | None, place: tuple[int, int] | None, seconds: float, stack: str, timeout: float | None
) -> str:
    """The report of a job that does not end; ``place`` is its (epoch, index), None: it loads the sequence."""
    process = f"worker {worker}" + (f" (process {pid})" if pid else "")
    state = _process_state(pid)
    what, then = "the loading of the sequence", "It is waited for."
    if place is not None:
        epoch, index = place
        what = f"batch {index} of epoch {epoch}" if index >= 0 else "a batch that nobody waits for any more"
        then = "It is waited for: job_timeout is not set."
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
