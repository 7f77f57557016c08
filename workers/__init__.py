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

- ``arguments``, ``checks``, ``errors``: bad arguments, and what is raised.
- ``bars``: progress bars, of what takes long. Only who makes one imports it, and with it tqdm.
- ``limits``: how much memory, how many processes and cores there are for us, in a container too.
- ``job``: what a job knows and draws: its place, its random stream, the generators and frameworks it may draw from.
- ``batch``: a batch as bytes in shared memory, and back, with the ``label`` that identifies it; arrays that are shared
  (``share``), and lists of strings.
- ``figures``: what is noted while a loop runs, the report and verdict that is made of it, pictures of it, and the page
  on which a pool publishes them.
- ``engine``: jobs in, batches out; it knows no Sequence. ``schedule`` decides, ``engine`` drives, ``rest`` ends workers
  that have nothing to do, ``parked`` has batches wait for memory, ``serial`` has no workers. ``auto`` has as many as
  pay, of which ``chooser`` decides.
- ``process``: all that crosses a process boundary: messages, the replica, its source text (``cells``) and what has
  changed in it (``watch``, ``kept_back``), what the program has set for itself (``surroundings``), what goes
  ``by_value``, ``__main__`` of a worker (``main_module``), items of streams (``ring``), log records (``logs``), the
  server with its imports (``preload``), the worker.
- ``for_keras``: what Keras is given, and how it reads it.
- ``sequence``: what a user writes and where it stands: clock, position, pass, state, how it shows itself (``looks``),
  and what is made of it.
- ``loader``: a pool behind a for loop: ``SequenceMap`` and ``prefetch``.
- ``top``: ``python -m workers.top``, which reads the pages of ``figures`` from outside.

Versions are semantic: MAJOR.MINOR.PATCH. Only a new MAJOR takes away or changes what is public: names, arguments and
what they mean, the promises of the README, the bytes of batch (seed, epoch, index), and states, which every later
version of the same MAJOR loads. MINOR adds; PATCH mends. A fix that has to change the bytes of a batch is a new MAJOR
too. Until 1.0.0 MINOR stands for MAJOR, and PATCH for the rest. The bytes are promised for one version of numpy and of
whatever else the batch is drawn with.
"""

from . import wiring as _wiring  # noqa: F401  # what the methods of the chain make
from .batch.empty import empty
from .batch.share import share
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
from .figures.pictures.preview import preview
from .figures.report import Report
from .for_keras.resume import ResumeSequence
from .job.seeding import Job, current_job, current_rng, current_seed
from .job.task import single_function_to_run
from .loader.metadata import Metadata
from .loader.prefetch import prefetch
from .loader.sequence_map import SequenceMap, logger
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
