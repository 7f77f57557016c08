"""A multiprocess prefetching engine for sequences of batches. Imports numpy, never TensorFlow.

::

    |=================== consumer process ====================|======== worker process 1..n ========|

     +-----------+  (epoch, index)  +------------+   Job    +---------+      +------------------------+
     | SequenceMap| ==============> |  schedule  | =======> | channel | ===> | replica of the Sequence |
     | (for loop) |                 | (pure)     |          |   #i    |      |  get_examples           |
     +-----------+                  | order,     | <======= |         | <=== |  augmenter              |
       |   ^  batch (views)         | credits,   |  Done /  +---------+      |  function_to_run        |
       |   +----------------------- | retries    |  Failed                   +-----------|------------+
       |  lease ends = slot is free +------------+                                       | written once
       +------------------------------> slots of worker i: anonymous shared memory <-----+

In the order data flows, a module each:

- ``sequence``: what a user writes, a function of the index; ``loop`` is a plain loop over it. ``sequence_array``:
  arrays as one. ``sequence_shard``: the part of one rank. ``task``: what a worker does for an index.
- ``sequence_map``: the front-end, and ``reading``: one pass of it. ``starting`` starts its pool.
  ``prefetching``: the function ``prefetch``.
- ``resume``: where a sequence stands, and its states. ``resume_sequence``: the same for ``model.fit``.
- ``keras_dataset``: the same as ``model.fit`` sees it; ``keras_front``: its pool, where it has none of its own.
- ``pool``: the engine, one thread that drives a ``schedule`` (pure decisions) and one of the ``executors``. ``serial``
  is in its place where there are no workers.
- ``processes``: the executor of worker processes, each behind a private ``channel`` of ``messages``; forked and
  reaped by a small ``server``, never from the user's process.
- ``replica``: the Sequence on its way to the workers, pickled once, its large arrays in ``shared_memory`` once;
  ``traced``: a ``tf.function`` in it.
- ``worker``: a worker's life. ``board`` is where it says which job it is in; ``failure`` brings home what a job raises.
- ``seeding`` makes the random numbers of a job a function of (seed, epoch, index): ``generators`` finds the random
  generators that a sequence holds, ``tensorflow_draws`` sees to what TensorFlow draws, ``twister`` keeps the user's
  generators.
- ``slots``: the memory of batches, written by the worker and leased to the consumer; ``layout`` takes batches
  apart into arrays and puts them together again. ``memory_limit``: whether there is room for one.
- ``report``: what the log says. ``errors``: what is raised.
"""

from .batch.empty import empty
from .errors import (
    ClosedError,
    JobError,
    JobTimeoutError,
    NotPicklableError,
    PlatformError,
    PrefetchError,
    RemoteTraceback,
    StateError,
    WorkerDiedError,
    WorkerError,
    WorkerStartError,
)
from .for_keras.resume import ResumeSequence
from .job.seeding import Job, current_job, current_rng, current_seed
from .job.task import single_function_to_run
from .loader.metadata import Metadata
from .loader.prefetching import prefetch
from .loader.sequence_map import SequenceMap, logger
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
    "single_function_to_run",
]
