"""A multiprocess prefetching engine for sequences of batches. Imports numpy, never TensorFlow.

::

    |=================== consumer process =====================|======== worker process 1..n ========|

     +------------+  a Plan of  +----------+  jobs  +------------+  Job   +---------+     +-----------------------+
     | SequenceMap|  the epoch  |   Loop   | =====> |  schedule  | =====> | channel | ==> | replica of what the   |
     |  (options, | ==========> |  (pass,  |        | (pure:     |        |   #i    |     | Plan asks: source and |
     |   a Loop)  |             |   pool)  | <===== |  order,    | <===== |         | <== | functions             |
     +------------+             +----------+ items  |  credits,  |  Done / +---------+    +-----------|-----------+
        |    ^                      |               |  retries)  |  Failed                            | written once
        |    +----- batch (views) --+               +------------+                                    |
        |  lease ends = slot is free                                                                  |
        +--------------------------------------> slots of worker i: anonymous shared memory <---------+

The rooms, each of which knows only those before it:

- ``arguments``, ``checks``, ``errors``, ``limits``: checks of arguments, what is raised, and how much memory, how many
  processes and how many cores there are for us.
- ``frameworks``: what is known of TensorFlow, torch, JAX, Keras, albumentations and Pillow, one file each.
- ``job``: what a job knows and draws: its place, its random stream, the generators that it may draw from.
- ``batch``: a batch as bytes in shared memory, and back; arrays that are shared, lists of strings; samples stacked to
  batches, batches cut and joined.
- ``report``: what is noted while a loop runs, the report and verdict that is made of it, pictures of it, and the page
  on which a pool publishes them.
- ``engine``: jobs in, batches out; it knows no Sequence. ``schedule`` decides, ``driver`` drives, ``serial`` has no
  workers. ``auto`` has as many as pay, of which ``chooser`` decides.
- ``process``: all that crosses a process boundary: messages, the replica and what has changed in it, log records, the
  server with its imports, the worker.
- ``cluster``: the same for workers that are actors of Ray.
- ``sequence``: what a user writes and where it stands, and the words that make another sequence of it. What a chain
  computes is a value, a ``plan``.
- ``loader``: a loop over a sequence whose batches workers compute: ``SequenceMap`` and ``prefetch``.
- ``for_keras``: how ``model.fit`` reads a sequence.
- ``wiring``: what rooms call of those that stand behind them.
- ``top``: ``python -m workers.top``, which reads the pages of ``report`` from outside.

Versions are semantic: MAJOR.MINOR.PATCH. Only a new MAJOR takes away or changes what is public: names, arguments and
what they mean, the promises of the README, the bytes of batch (seed, epoch, index), and states, which every later
version of the same MAJOR loads. MINOR adds; PATCH mends. A fix that has to change the bytes of a batch is a new MAJOR
too. Until 1.0.0 MINOR stands for MAJOR, and PATCH for the rest. The bytes are promised for one version of numpy and of
whatever else the batch is drawn with.
"""

from . import wiring as _wiring  # noqa: F401  # what the methods of the chain make
from .batch.share import share
from .batch.slot_writer import empty
from .errors import (
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
    WorkerDiedError,
    WorkerError,
    WorkerStartError,
)
from .for_keras.resume import ResumeSequence
from .job.seeding import Job, current_job, current_rng, current_seed
from .job.task import single_function_to_run
from .loader.consumer import Metadata
from .loader.prefetch import prefetch
from .loader.sequence_map import SequenceMap, logger
from .report.pictures.preview import preview
from .report.report import Report
from .sequence.array import SequenceArray
from .sequence.base import Sequence

__version__ = "0.1.0"  # the one place: setup.cfg reads it from here

__all__ = [
    "ClosedError",
    "IntegrityError",
    "Job",
    "JobError",
    "JobTimeoutError",
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
    "WorkerDiedError",
    "WorkerError",
    "WorkerStartError",
    "current_job",
    "current_rng",
    "current_seed",
    "empty",
    "logger",
    "prefetch",
    "preview",
    "share",
    "single_function_to_run",
]
