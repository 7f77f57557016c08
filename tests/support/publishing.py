"""A program with a pool that only says it is one: it publishes figures, and has processes in the place of workers.

    python publishing.py [--fork] [--user=61234]

It prints its process id and that of its worker when it has begun, and runs until its standard input ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import Any

from workers.report.snapshot_page import LaneSnapshot, Snapshot, SnapshotPage

EVERY_S = 0.05
JOBS_PER_S = 100
BATCH_NBYTES = 1 << 20


def lane(number: int = 0, **changed: Any) -> LaneSnapshot:
    found: Any = {
        "number": number,
        "pid": None,
        "state": "ready",
        "jobs": 0,
        "busy_ns": 0,
        "restarts": 0,
        "epoch": None,
        "index": None,
        "since_ns": 0,
    }
    return {**found, **changed}  # type: ignore[no-any-return]


def snapshot(**changed: Any) -> Snapshot:
    found: Any = {
        "pid": os.getpid(),
        "program": "publishing.py",
        "name": "<Crops: 40 batches>",
        "since": time.time(),
        "at_ns": time.monotonic_ns(),
        "epoch": 3,
        "batch": 17,
        "length": 40,
        "executor": "process",
        "nb_workers": 2,
        "bound": 8,
        "ready": 5,
        "batches": 0,
        "nbytes": 0,
        "wait_ns": 0,
        "workers": [],
        "choice": "",
    }
    return {**found, **changed}  # type: ignore[no-any-return]


def figures(worker: int, begun_ns: int, since: float) -> Snapshot:
    """After a time: a worker that is busy half of it, and another one that has died twice."""
    ns = time.monotonic_ns() - begun_ns
    jobs = ns * JOBS_PER_S // 1_000_000_000
    workers = [
        lane(0, pid=worker, jobs=jobs, busy_ns=ns // 2),
        lane(1, state="starting", restarts=2, epoch=4, index=1234, since_ns=begun_ns),
    ]
    told = {"batches": jobs, "nbytes": jobs * BATCH_NBYTES, "wait_ns": ns // 4, "workers": workers}
    return snapshot(since=since, choice="2 workers: the loop waited 25% of the time", **told)


def publish(page: SnapshotPage, worker: int, ended: threading.Event) -> None:
    begun_ns, since = time.monotonic_ns(), time.time()
    while not ended.is_set():
        page.publish(figures(worker, begun_ns, since))
        ended.wait(EVERY_S)


def become(user: int) -> None:
    """Another user, from here on; what was not imported by now he may not be allowed to."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def main() -> None:
    for argument in sys.argv[1:]:
        if argument.startswith("--user="):
            become(int(argument.partition("=")[2]))
    page, ended = SnapshotPage(), threading.Event()
    worker = subprocess.Popen(["sleep", "600"])
    page.publish(figures(worker.pid, time.monotonic_ns(), time.time()))
    fork = os.fork() if "--fork" in sys.argv else None
    if fork == 0:  # it has all descriptors of its parent, and nothing else to do
        sys.stdin.read()
        os._exit(0)
    thread = threading.Thread(target=publish, args=(page, worker.pid, ended))
    thread.start()
    print(os.getpid(), worker.pid, flush=True)
    sys.stdin.read()
    ended.set()
    thread.join()
    page.close()
    worker.kill()
    worker.wait()
    if fork:
        os.waitpid(fork, 0)


if __name__ == "__main__":
    main()
