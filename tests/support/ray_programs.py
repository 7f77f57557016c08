"""Programs on a Ray cluster of three nodes on this machine: ``python ray_programs.py NAME`` plays one, and prints what
it found as JSON."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import logging
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from faulty import read

from workers import Sequence, current_job, current_rng

LENGTH = 60


class Drawn(Sequence[Any]):
    """Batches that draw, and that say what was seen of the object."""

    def __init__(self, seconds: float = 0.01, length: int = LENGTH, size: int = 50_000) -> None:
        super().__init__(seed=7)
        self.seconds, self.length, self.size = seconds, length, size
        self.array = np.arange(1 << 20)
        self.noted = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        time.sleep(self.seconds)
        drawn = current_rng().random(20), np.random.random(3), np.full(self.size, float(index))
        return drawn, index, self.noted, int(self.array[index])


class Hooked(Drawn):
    def on_epoch_end(self) -> None:
        self.noted += 1
        self.array[:] += 1


def plain(batch: Any) -> Any:
    drawn, *rest = batch
    return [part.tobytes().hex()[:400] for part in drawn], *rest


def expected(source: Sequence[Any], epochs: int = 1) -> list[Any]:
    with source.prefetch(nb_workers=0) as batches:
        return [plain(batch) for _ in range(epochs) for batch in batches]


def made(nodes: int = 3, cpus: int = 1) -> Any:
    """A cluster that this program is connected to; the program is on its head, which has no workers."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 200 << 20})
    for _ in range(nodes):
        cluster.add_node(num_cpus=cpus, object_store_memory=200 << 20)
    ray.init(address=cluster.address, log_to_driver=False)
    return cluster


def actors() -> int:
    """How many there are."""
    found = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found += "ray::Actor" in "".join(process.cmdline()[:1])
    return found


def until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


# -- the programs


def same() -> Any:
    made()
    found = {}
    for kind in (Drawn, Hooked):
        with kind().prefetch(nb_workers=3, executor="ray") as batches:
            got = [plain(batch) for _ in range(3) for batch in batches]
            report = batches.report()
        found[kind.__name__] = got == expected(kind(), 3)
        spans = [span for span in report.timeline.spans if span.worker == 0]
        gaps = [later.start_ns - one.start_ns for one, later in itertools.pairwise(spans)]
        found["one after the other"] = statistics.median(gaps) > 0.5 * statistics.median(span.job_ns for span in spans)
    found["executor"] = report.executor
    found["workers"] = len(report.workers)
    with Drawn(0.0).prefetch(nb_workers=2, executor="ray") as batches:
        found["read-only"] = not next(iter(batches))[0][2].flags.writeable
        assert [batch[1] for batch in batches] == list(range(LENGTH))
    with Drawn(0.0).prefetch(nb_workers=2, executor="ray", executor_options={"writable": True}) as batches:
        found["writable"] = next(iter(batches))[0][2].flags.writeable
    with Drawn(0.0).prefetch(nb_workers=2, executor="ray", in_order=False) as batches:
        found["any order"] = sorted(batch[1] for batch in batches) == list(range(LENGTH))
    with Drawn().prefetch(nb_workers=3, executor="ray") as batches:
        loop = iter(batches)
        got = [plain(next(loop)) for _ in range(20)]
        state = batches.state_dict()
    with Drawn().prefetch(nb_workers=2, executor="ray") as batches:
        batches.load_state_dict(state)
        found["resumed"] = got + [plain(batch) for batch in batches] == expected(Drawn())
    with Locked(0.0).prefetch(nb_workers=1, executor="ray") as batches:
        try:
            list(batches)
        except Exception as error:
            found["unpicklable"] = f"{type(error).__name__}: {error}"
    found["actors"] = 0 if until(lambda: actors() == 0) else actors()
    return found


class Placed(Drawn):
    """Batches that say where the array lies: (node, process, the place in which file)."""

    def __getitem__(self, index: int) -> Any:
        import ray

        time.sleep(self.seconds)
        address = self.array.__array_interface__["data"][0]
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, _, offset, _, inode, *_ = line.split()
            start, end = (int(each, 16) for each in span.split("-"))
            if start <= address < end:
                return ray.get_runtime_context().get_node_id(), os.getpid(), inode, int(offset, 16) + address - start
        raise LookupError(hex(address))


def store() -> Any:
    """Four actors on two nodes."""
    made(nodes=2, cpus=2)
    with Placed(0.05).prefetch(nb_workers=4, executor="ray") as batches:
        until(lambda: actors() == 4)
        seen = {tuple(batch) for _ in range(2) for batch in batches}
    return {"actors": len({pid for _, pid, _, _ in seen}), "places": len({(node, *at) for node, _, *at in seen})}


class Uneven(Drawn):
    """On the node ``slow`` a job takes a hundred times as long. Batches that say whether they are from there."""

    slow = ""

    def __getitem__(self, index: int) -> Any:
        import ray

        is_slow = ray.get_runtime_context().get_node_id() == self.slow
        time.sleep(2.0 if is_slow else 0.02)
        return index, is_slow


def uneven() -> Any:
    """One of three nodes is slow."""
    cluster = made()
    sequence = Uneven(length=150)
    sequence.slow = next(iter(cluster.worker_nodes)).node_id
    found = {}
    for in_order in (True, False):
        with sequence.prefetch(nb_workers=3, executor="ray", max_queue_size=20, in_order=in_order) as batches:
            until(lambda: actors() == 3)
            got = list(batches)
        found["in order" if in_order else "as they come"] = got
    return found


class Logging(Drawn):
    def __getitem__(self, index: int) -> Any:
        logging.getLogger("jobs").warning("batch %d", index)
        return index


def logs() -> Any:
    """What the program's handlers get."""
    made(nodes=1)
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger("jobs").addHandler(handler)
    logging.disable(logging.NOTSET)
    with Logging(length=10).prefetch(nb_workers=1, executor="ray") as batches:
        list(batches)
        until(lambda: len(records) >= 10)
    return [(record.getMessage(), record.processName) for record in records[:10]]


class Locked(Drawn):
    """Its batches cannot be sent."""

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index), threading.Lock()


class Failing(Drawn):
    def __getitem__(self, index: int) -> Any:
        job = current_job()
        assert job is not None
        if index == 3:
            raise KeyError("of batch 3")
        if index == 7 and not job.attempt:
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 11 and not job.attempt:
            time.sleep(100)
        return super().__getitem__(index)


class Deadly(Drawn):
    def __getitem__(self, index: int) -> Any:
        if index == 5:
            os._exit(3)
        return super().__getitem__(index)


def faults() -> Any:
    made()
    with Failing().prefetch(nb_workers=3, executor="ray", job_timeout=3.0) as batches:
        got = [str(each) if isinstance(each, KeyError) else plain(each) for each in read(batches)]
        report = batches.report()
    wanted = expected(Drawn())
    wanted[3] = "'of batch 3'"
    found: dict[str, Any] = {"same": got == wanted, "restarts": sum(each.restarts for each in report.workers)}
    found["deaths"] = [each.text for each in report.timeline.incidents if each.kind == "died"]
    with Deadly().prefetch(nb_workers=2, executor="ray", on_error="skip") as batches:
        found["skipped"] = [batch[1] for batch in batches] == [index for index in range(LENGTH) if index != 5]
    try:
        with Deadly().prefetch(nb_workers=2, executor="ray") as batches:
            list(batches)
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}"
    return found


def node() -> Any:
    """One of three nodes goes in the middle of an epoch; later one joins, and is used."""
    cluster = made()
    found: dict[str, Any] = {}
    with Drawn(0.05).prefetch(nb_workers=3, executor="ray") as batches:
        until(lambda: actors() == 3)
        got = []
        for batch in batches:
            got.append(plain(batch))
            if len(got) == 15:
                arguments = {"allow_graceful": False}
                victim = next(iter(cluster.worker_nodes))
                threading.Thread(target=cluster.remove_node, args=[victim], kwargs=arguments).start()
        got += [plain(batch) for batch in batches]
        found["same"] = got == expected(Drawn(0.0), 2)
        found["after"] = actors()
        cluster.add_node(num_cpus=1)
        found["joined"] = until(lambda: actors() == 3)
        found["still"] = [batch[1] for batch in batches] == list(range(LENGTH))
    return found


class GoesOn(Drawn):
    """A job that lets no other thread run, for longer than a node may be silent."""

    def __getitem__(self, index: int) -> Any:
        if index == 3:
            ctypes.PyDLL(None).sleep(6)
        return super().__getitem__(index)


def stopped() -> Any:
    """One of three nodes is stopped in the middle of an epoch. It costs no batch, and not a minute."""
    cluster = made()
    found: dict[str, Any] = {}
    options = {"node_timeout": 4.0}
    for source in (Hooked, GoesOn):
        with source(0.05).prefetch(nb_workers=3, executor="ray", executor_options=options) as batches:
            until(lambda: actors() == 3)
            found[source.__name__] = [plain(batch) for batch in batches] == expected(source(0.0))
            found[f"{source.__name__} restarts"] = sum(each.restarts for each in batches.report().workers)
    for when in ("within an epoch", "between epochs"):
        with Hooked(0.05).prefetch(nb_workers=3, executor="ray", executor_options=options) as batches:
            until(lambda: actors() == 3)
            got, waits = [], []
            for _epoch in range(2):
                loop, stop_at = iter(batches), 15 if when == "within an epoch" else LENGTH - 1
                for _ in range(LENGTH):
                    if len(got) == stop_at:
                        halted = halt(next(iter(cluster.worker_nodes)))
                    start = time.monotonic()
                    got.append(plain(next(loop)))
                    waits.append(time.monotonic() - start)
            found[when] = got == expected(Hooked(0.0), 2)
            found[f"{when}, longest wait"] = max(waits)
            for each in halted:
                each.resume()
    return found


def halt(node: Any) -> list[psutil.Process]:
    """Stop all of its processes."""
    below = [psutil.Process(each.process.pid) for each in node.all_processes["raylet"]]
    found = [*below, *(child for each in below for child in each.children(recursive=True))]
    for each in found:
        each.suspend()
    return found


def auto() -> Any:
    """It follows the cluster."""
    made(nodes=2)
    with Drawn(0.05, 200, size=100).prefetch(nb_workers="auto", executor="ray") as batches:
        got = [plain(batch) for batch in batches]
        report = batches.report()
    return {"same": got == expected(Drawn(0.0, 200, size=100)), "workers": report.nb_workers, "choices": report.choices}


def head() -> Any:
    """The head is gone: an error, after a bound."""
    cluster = made()
    with Drawn(0.2, length=10_000).prefetch(nb_workers=3, executor="ray") as batches:
        try:
            for number, _ in enumerate(batches):
                if number == 10:
                    start = time.monotonic()
                    gcs = [each for each in psutil.Process().children(recursive=True) if "gcs_server" in each.name()]
                    for each in gcs:
                        each.kill()
        except Exception as error:
            print(
                json.dumps({"error": f"{type(error).__name__}: {error}", "seconds": time.monotonic() - start}),
                flush=True,
            )
            for each in psutil.Process().children(recursive=True):
                each.kill()
            os._exit(0)
    del cluster
    return {}


def of_ranks(name: str, *arguments: str) -> list[Any]:
    """What two ranks have found, each a process of its own that runs function ``name``, with its number first."""
    code = "import ray_programs; ray_programs.{}({}, *{!r})"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code.format(name, number, arguments)], stdout=subprocess.PIPE, text=True
        )
        for number in range(2)
    ]
    return [json.loads(each.communicate(timeout=100)[0].splitlines()[-1]) for each in started]


def ranks() -> Any:
    """They read their shards from one cluster."""
    cluster = made(nodes=2, cpus=2)
    return {"seen": of_ranks("rank", cluster.address)}


def rank(number: int, address: str) -> None:
    shard = Drawn(0.0, 21).shuffle().shard(number, 2)
    options = {"address": address}
    with shard.prefetch(nb_workers=1, executor="ray", executor_options=options) as batches:
        print(json.dumps([[batch[1] for batch in batches] for _ in range(2)]), flush=True)


class Line(Sequence[Any]):
    """Points of a line, and their numbers."""

    def __len__(self) -> int:
        return 21

    def __getitem__(self, index: int) -> Any:
        x = current_rng().random((32, 1), np.float32)
        return x, 3 * x - 1, index


def train() -> Any:
    """They train one model on batches of one cluster."""
    cluster = made(nodes=2)
    with tempfile.TemporaryDirectory() as folder:
        return of_ranks("trainer", cluster.address, os.path.join(folder, "ranks"))


def trainer(rank: int, address: str, file: str) -> None:
    import torch
    from torch import distributed

    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    shard = Line(seed=3).shuffle().shard(rank, 2)
    epochs, losses = [], []
    with shard.prefetch(nb_workers=1, executor="ray", executor_options={"address": address}, output="torch") as batches:
        for _ in range(6):
            epochs.append([])
            for x, y, index in batches:
                loss = ((model(x) - y) ** 2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                epochs[-1].append(int(index))
                losses.append(loss.item())
    weights = [each.item() for each in model.parameters()]
    distributed.destroy_process_group()
    print(json.dumps({"epochs": epochs, "losses": losses, "weights": weights}), flush=True)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    sys.modules["ray_programs"] = sys.modules["__main__"]
    import ray_programs

    print(json.dumps(getattr(ray_programs, sys.argv[1])()), flush=True)
    import ray

    ray.shutdown()
