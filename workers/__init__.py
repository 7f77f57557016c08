"""A multiprocess prefetching engine for sequences of batches. Imports numpy, never TensorFlow.

::

    |=================== consumer process =====================|======== worker process 1..n ========|

     +------------+  (epoch, index)  +------------+   Job    +---------+      +------------------------+
     | SequenceMap| ===============> |  schedule  | =======> | channel | ===> | replica of the Sequence |
     | (for loop) |                  | (pure)     |          |   #i    |      |  get_examples           |
     +------------+                  | order,     | <======= |         | <=== |  augmenter              |
       |   ^  batch (views)          | credits,   |  Done /  +---------+      |  function_to_run        |
       |   +------------------------ | retries    |  Failed                   +-----------|------------+
       |  lease ends = slot is free  +------------+                                       | written once
       +------------------------------> slots of worker i: anonymous shared memory <------+

The rooms, each of which knows only those before it:

- ``checks``, ``errors``: bad arguments, and what is raised.
- ``job``: what a job knows and draws: its place, its random stream, the generators and frameworks it may draw from.
- ``batch``: a batch as bytes in shared memory, and back; arrays that are shared (``share``), and lists of strings.
- ``engine``: jobs in, batches out; it knows no Sequence. ``schedule`` decides, ``engine`` drives, ``serial`` has no
  workers.
- ``process``: all that crosses a process boundary: messages, the replica, its source text (``cells``) and what has
  changed in it (``watch``), items of streams (``ring``), the server with its imports (``preload``), the worker.
- ``for_keras``: what Keras is given, and how it reads it.
- ``sequence``: what a user writes and where it stands: clock, position, pass, state, how it shows itself (``looks``),
  and what is made of it.
- ``loader``: a pool behind a for loop: ``SequenceMap`` and ``prefetch``.
"""

from .batch.empty import empty
from .batch.share import share
from .errors import (
    ClosedError,
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
from .loader import fit as _fit  # noqa: F401
from .loader.metadata import Metadata
from .loader.prefetch import prefetch
from .loader.sequence_map import SequenceMap, logger
from .sequence import batched, shard, shuffle  # noqa: F401  # what the methods of the chain make
from .sequence.array import SequenceArray
from .sequence.base import Sequence

__all__ = [
    "ClosedError",
    "Job",
    "JobError",
    "JobTimeoutError",
    "Metadata",
    "NotPicklableError",
    "PlatformError",
    "PrefetchError",
    "RemoteTraceback",
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
    "share",
    "single_function_to_run",
]
