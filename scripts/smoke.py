"""Try the installed packages as a user's program from stdin. scripts/package runs it in an empty folder."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import numpy as np

import sampler
import workers

ENVIRONMENT = Path(sys.prefix).resolve()


def augment(x, y, num_augmentations_per_example, is_warmup):  # type: ignore[no-untyped-def]
    job = workers.current_job()
    if job is not None and job.worker is not None and job.index == 3 and job.attempt == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return x + workers.current_rng().normal(size=x.shape), y


def batches_of(nb_workers: int) -> list[bytes]:
    seq = sampler.SingleShotMemorySampler(np.eye(64), augment, class_per_batch=8, steps_per_epoch=10, seed=1)
    with seq.prefetch(nb_workers=nb_workers) as batches:
        found = [x.tobytes() + y.tobytes() for x, y in batches]
        with tempfile.TemporaryDirectory() as folder:  # the page is made from files of the package
            batches.report().save(Path(folder) / "report.html")
        return found


for package in (workers, sampler):
    folder = Path(str(package.__file__)).resolve().parent
    assert ENVIRONMENT in folder.parents, f"{package.__name__} is that of {folder}, not of {ENVIRONMENT}"
    assert (folder / "py.typed").exists(), f"{folder} has no py.typed"
assert workers.__version__ == metadata.version("prefetch-sequence")
logging.getLogger("workers").setLevel(logging.ERROR)  # no line for the worker that is killed
serial = batches_of(0)
assert len(set(serial)) == 10
assert batches_of(2) == serial, "a worker was killed, and batches are not the same"
print(f"prefetch-sequence {workers.__version__}, Python {sys.version.split()[0]}, numpy {np.__version__}: works")
