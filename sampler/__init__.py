"""Draw batches for similarity learning from data, and augment them; a *sampler* is a Sequence of such batches.

::

    data --get_examples--> x, y --augmenter--> the batch      all of it a function of (seed, epoch, batch_id)

If there is only one example of each class, the augmenter makes more of them:

>>> import numpy as np
>>> from sampler import SingleShotMemorySampler
>>> from workers import current_rng
>>> def augment(x, y, num_augmentations_per_example, is_warmup):
...     x = np.repeat(x, num_augmentations_per_example, axis=0)
...     noise = current_rng().normal(0, 0.1, x.shape)
...     return x + noise, np.repeat(y, num_augmentations_per_example)
>>> seq = SingleShotMemorySampler(np.eye(100), augment, class_per_batch=8, steps_per_epoch=5, seed=1)
>>> for x, y in seq:  # one pass is one epoch
...     print(x.shape, y.shape)
(16, 100) (16,)
(16, 100) (16,)
(16, 100) (16,)
(16, 100) (16,)
(16, 100) (16,)

``seq.prefetch(nb_workers=4)`` computes the same batches in worker processes. For an augmenter with settings, subclass
:class:`Augmenter`; for a sampler that draws examples in another way, subclass :class:`Sampler`.

TensorFlow is imported only when something that needs it is called.

Source: TensorFlow Similarity API, ``TFSimilarity.samplers`` and ``TFSimilarity.augmenters``.
"""

from . import check_package as _beside  # noqa: F401  # first, before any import of workers
from .augmenter import Augmenter, ContrastiveAugmenter
from .augmenters import BarlowAugmenter, RandAugmenter, SimCLRAugmenter
from .files import MultiShotFileSampler
from .folders import ClassFolders, class_folders
from .image import image_size, load_image
from .memory.hierarchical import HierarchicalSampler
from .memory.samplers import MultiShotMemorySampler, SingleShotMemorySampler, select_examples
from .sampler import Sampler
from .tfdata import TFDataSampler
from .tfds import TFDatasetMultiShotMemorySampler
from .tfrecord.check import Problem, verify_shards
from .tfrecord.samplers import TFRecordDatasetSampler, TFRecordSequence
from .tfrecord.writer import write_class_shards
from .transforms import random_flip, random_resized_crop

__all__ = [
    "Augmenter",
    "BarlowAugmenter",
    "ClassFolders",
    "ContrastiveAugmenter",
    "HierarchicalSampler",
    "MultiShotFileSampler",
    "MultiShotMemorySampler",
    "Problem",
    "RandAugmenter",
    "Sampler",
    "SimCLRAugmenter",
    "SingleShotMemorySampler",
    "TFDataSampler",
    "TFDatasetMultiShotMemorySampler",
    "TFRecordDatasetSampler",
    "TFRecordSequence",
    "class_folders",
    "image_size",
    "load_image",
    "random_flip",
    "random_resized_crop",
    "select_examples",
    "verify_shards",
    "write_class_shards",
]
