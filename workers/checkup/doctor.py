"""``workers.check``: checks a source of batches before a long training, and prints what it finds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from workers.arguments import explains_arguments
from workers.checks import check_int

if TYPE_CHECKING:
    from .findings import CheckReport


@explains_arguments
def check(source: Any, nb_workers: int = 2, *, step_ms: float | None = None, num_batches: int = 8) -> CheckReport:
    """Check that workers can compute the batches of ``source``, print what is found, and return it.

    The first batches of an epoch are computed in workers and in this process, each twice, and compared byte for byte.
    Some more runs find the functions to blame. ``source`` stays as it is: no epoch begins for it, its hook
    ``on_epoch_begin`` is called and what it changes in attributes is set back, and all workers have ended on return.

    Args:
        source: what :func:`workers.prefetch` takes: a sequence, a chain, a front-end, a Keras PyDataset, a torch
            Dataset, a list, or anything with ``__iter__`` that can begin again.
        nb_workers: the number of workers, at least 1.
        step_ms: how long a step of the training takes, in milliseconds; to find out how many workers keep it fed.
        num_batches: how many batches are computed each time, at least 2.

    Returns:
        A :class:`workers.checkup.findings.CheckReport`. ``report.ok`` is False if there is an error: ``source`` cannot
        be sent to workers, raises, draws numbers that are not seeded, writes into its own data, or makes other batches
        in a worker than here. ``report.findings`` lists all, with ``kind``, ``level``, ``text`` and ``instead``.

    Raises:
        TypeError, ValueError: an argument is wrong. StateError: ``source`` is an iterator, which can be read only once,
            so that no batch of it can be computed twice: give an object whose ``__iter__`` makes a new one.

    Example:
        >>> import os
        >>> import numpy as np
        >>> import workers
        >>> class Noise(workers.Sequence):
        ...     def __len__(self):
        ...         return 10
        ...     def __getitem__(self, index):
        ...         return np.frombuffer(os.urandom(8), np.uint8)
        >>> report = workers.check(Noise())  # doctest: +ELLIPSIS
        Noise: 1 error
        ...
        >>> report.ok, report.findings[0].kind
        (False, 'not seeded')
    """
    nb_workers, num_batches = check_int("nb_workers", nb_workers, 1), check_int("num_batches", num_batches, 2)
    if step_ms is not None and (isinstance(step_ms, bool) or not isinstance(step_ms, (int, float)) or not step_ms > 0):
        raise (ValueError if isinstance(step_ms, (int, float)) else TypeError)(
            f"step_ms must be a number of milliseconds > 0 or None, not {step_ms!r}"
        )
    from .checking import report_on

    report = report_on(source, nb_workers, None if step_ms is None else step_ms / 1e3, num_batches)
    sys.stdout.write(f"{report}\n")
    return report
