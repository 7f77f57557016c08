"""A multiprocess prefetching engine for sequences of batches. Imports numpy, never TensorFlow.

::

    |=================== consumer process =====================|======== worker process 1..n ========|

     +------------+  a Plan of  +----------+  jobs  +------------+  Job   +---------+     +-----------------------+
     | SequenceMap|  the epoch  |   Loop   | =====> |  schedule  | =====> | channel | ==> | replica: the source   |
     |  (options, | ==========> |  (pass,  |        | (pure:     |        |   #i    |     | and the functions of  |
     |   a Loop)  |             |   pool)  | <===== |  order,    | <===== |         | <== | the Plan              |
     +------------+             +----------+ items  |  bounds,   |  Done / +---------+    +-----------|-----------+
        |    ^                      |               |  retries)  |  Failed                            | written once
        |    +----- batch (views) --+               +------------+                                    |
        |  lease ends = slot is free                                                                  |
        +--------------------------------------> slots of worker i: anonymous shared memory <---------+

The consumer is the process whose loop reads batches. A job computes one batch, or several, which are its items. A
replica is a worker's copy of the sequence. A slot is shared memory for a batch; its lease ends when the loop releases
the batch.

These are the rooms (modules and subpackages). Each room imports only from the rooms before it. For the module that
decides a given question, see the list in ``.github/CONTRIBUTING.rst``.

- ``arguments``, ``checks``, ``errors``, ``limits``, ``opening``: argument checks, exceptions, the memory, processes and
  cores that this process may use, and files.
- ``frameworks``: the code for TensorFlow, torch, JAX, Keras, albumentations and Pillow, one file each.
- ``job``: the job that runs (epoch, index), its random numbers (stream), and the seeding of the generators it uses.
- ``batch``: batches as bytes in shared memory, shared arrays and lists of strings; stacking samples into batches,
  cutting and joining batches.
- ``report``: the figures recorded while a loop runs, the report, verdict and pictures made from these figures, and the
  page on which a pool publishes them.
- ``engine``: runs jobs and delivers batches; it knows no Sequence. ``schedule`` decides what to do, ``driver`` does it,
  ``serial`` runs jobs without workers. ``auto`` uses the number of workers that ``chooser`` finds to be the best.
- ``process``: everything that crosses a process boundary (messages, the replica and changes to it, log records), the
  server with its imports, and the worker.
- ``cache``: keeps what functions return, in shared memory or in a folder, and finds out when that has changed.
- ``cluster``: the same for workers on the machines of a cluster, which are Ray actors.
- ``sequence``: the classes that users derive from, their position and state, and the methods that make one sequence
  from another. Sequences made from each other form a chain. Its ``plan`` describes what the chain computes.
- ``loader``: the loop over a sequence whose batches are computed by workers: ``SequenceMap`` and ``prefetch``.
- ``for_keras``: how ``model.fit`` reads a sequence.
- ``metrics``: hands the figures of a loop to the logs of Keras and Lightning, and to Prometheus.
- ``wiring``: gives earlier rooms the functions of later ones that they call.
- ``checkup``: ``check``, which computes a few batches in the program and in workers, and says what would go wrong.
- ``top``: ``python -m workers.top``, which shows running pools; it reads the pages of ``report`` from outside.
- ``__main__``: ``python -m workers``, which prints the facts that a bug report needs, and ``python -m workers check``.

Versions are semantic: MAJOR.MINOR.PATCH. Only a new MAJOR removes or changes anything public: names, arguments and
their meaning, the promises of the README, the bytes of batch (seed, epoch, index), and saved states, which every later
version of the same MAJOR loads. MINOR adds; PATCH fixes. A fix that changes the bytes of a batch needs a new MAJOR too.
Before 1.0.0, MINOR takes the role of MAJOR, and PATCH both other roles. The bytes are promised for one version of numpy
and of any other library that draws the batch's random numbers.
"""

from . import wiring as _wiring  # noqa: F401  # registers what methods such as .map() make
from .batch.normalizing import normalize
from .batch.padding import pad
from .batch.share import share
from .batch.slot_writer import empty
from .cache.in_folder import cache_info, clear_cache
from .checkup.doctor import check
from .errors import (
    CacheError,
    ClosedError,
    IntegrityError,
    JobError,
    JobTimeoutError,
    NotPicklableError,
    PlatformError,
    PrefetchError,
    RemoteTraceback,
    StalePassError,
    StateError,
    TooManyFailuresError,
    WorkerDiedError,
    WorkerError,
    WorkerStartError,
)
from .for_keras.resume import ResumeSequence
from .job.draws import current_job
from .job.function_use import timed
from .job.seeding import Job, current_rng, current_seed
from .job.task import single_function_to_run
from .loader.consumer import Metadata
from .loader.prefetch import prefetch
from .loader.sequence_map import SequenceMap, logger
from .metrics.export import export
from .metrics.log_loading import LogLoading
from .opening import open  # noqa: A004
from .report.pictures.preview import preview
from .report.report import Report
from .sequence.array import SequenceArray
from .sequence.base import Sequence
from .sequence.mix import mix
from .sequence.parts import concat, zip  # noqa: A004

__version__ = "0.1.0"  # defined only here; setup.cfg reads it

__all__ = [
    "CacheError",
    "ClosedError",
    "IntegrityError",
    "Job",
    "JobError",
    "JobTimeoutError",
    "LogLoading",
    "Metadata",
    "NotPicklableError",
    "PlatformError",
    "PrefetchError",
    "RemoteTraceback",
    "Report",
    "ResumeSequence",
    "Sequence",
    "SequenceArray",
    "SequenceMap",
    "StalePassError",
    "StateError",
    "TooManyFailuresError",
    "WorkerDiedError",
    "WorkerError",
    "WorkerStartError",
    "cache_info",
    "check",
    "clear_cache",
    "concat",
    "current_job",
    "current_rng",
    "current_seed",
    "empty",
    "export",
    "logger",
    "mix",
    "normalize",
    "open",
    "pad",
    "prefetch",
    "preview",
    "share",
    "single_function_to_run",
    "timed",
    "zip",
]
