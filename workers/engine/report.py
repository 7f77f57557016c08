"""What the engine has to say: why a job was given up, which worker is stuck and where."""

from __future__ import annotations

from typing import Any

from workers.errors import JobTimeoutError, WorkerDiedError, WorkerError

TIMEOUT = "job_timeout"


def given_up(epoch: int, index: int, deaths: int, causes: list[Any]) -> WorkerError:
    """The error of a job that ended its worker ``deaths`` times; ``causes`` are the Deaths."""
    last = causes[-1]
    where = f"batch {index} of epoch {epoch}"
    if all(cause.how.startswith(TIMEOUT) for cause in causes):
        return JobTimeoutError(
            f"{where} took longer than {last.how} in each of {deaths} attempts. Raise job_timeout, or see why it "
            f"hangs; its stack at the last timeout:\n{last.text or '(none)'}"
        )
    import psutil  # here: it takes longer to import than the rest of this package

    memory = psutil.virtual_memory()
    gigabytes = 1 / (1 << 30)
    text = (
        f"Worker process {last.pid} was {last.how} in {where}, for the {_ordinal(deaths)} time. "
        if last.how.startswith("killed")
        else f"Worker process {last.pid} {last.how} in {where}, for the {_ordinal(deaths)} time. "
    )
    text += f"It held up to {last.max_rss >> 20:,} MB of {memory.total * gigabytes:.1f} GB"
    text += f"; {memory.available * gigabytes:.1f} GB are available now. "
    if "SIGKILL" in last.how:
        text += "Most likely it was the out-of-memory killer: lower nb_workers or max_queue_size."
    elif last.text:
        text += f"Where it was:\n{last.text}"
    else:
        text += "Something in the job ended its process."
    return WorkerDiedError(text)


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
