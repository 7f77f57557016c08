"""``LogLoading``: the callback of Keras or of Lightning that logs how the loading of the data goes."""

from __future__ import annotations

from typing import Any, Literal

from workers.checks import check_choice, check_int
from workers.sequence.base import Sequence


def LogLoading(  # to its users a class; the real one is a callback of the framework
    batches: Any = None, every: int = 50, framework: Literal["keras", "lightning"] | None = None
) -> Any:
    """A callback of Keras or Lightning that adds figures of the data loading to the logs of ``fit``.

    They are ``data/wait_share`` (0 to 1), ``data/batches_per_s``, ``data/job_ms``, ``data/workers``, ``data/restarts``
    and ``data/cache_hits``, as ``batches.figures()`` has them: averages and counts, never single waits. They are those
    of the training data; validation data of its own is not counted.

    - Keras: the logs of an epoch have the figures of the epoch; those of each step have the figures of the last
      ``every`` steps before it. Put it before the callbacks that write logs, such as ``TensorBoard``, ``CSVLogger`` and
      those of W&B and MLflow: ``callbacks=[LogLoading(), CSVLogger("log.csv")]``.
    - Lightning: all loggers of the trainer get the figures after ``every`` steps, and after the rest of an epoch.

    Args:
        batches: the front-end, or sequence, that ``fit`` reads. By default the one that is found there: it need only be
            given if ``fit`` reads it through something else, such as a generator.
        every: number of steps whose figures are logged together.
        framework: ``"keras"`` or ``"lightning"``; None for Lightning if the program has imported it, else Keras.

    Raises:
        TypeError, ValueError: an argument is wrong. ImportError: the framework is not installed. In ``fit``, TypeError:
            it reads no sequence of this package, or is that of the other framework; StateError: no workers compute its
            batches.
    """
    if batches is not None and not isinstance(batches, Sequence):
        raise TypeError(f"batches must be a front-end or a sequence, not a {type(batches).__name__}")
    every = check_int("every", every, 1)
    check_choice("framework", framework, (None, "keras", "lightning"))
    from . import keras, lightning

    if framework is None:
        # Keras is often imported only because TensorBoard imports TensorFlow, but Lightning is for its users alone.
        framework = "lightning" if lightning.is_loaded() else "keras"
    return (keras if framework == "keras" else lightning).callback_class()(batches, every)
