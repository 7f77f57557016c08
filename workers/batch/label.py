"""What identifies a batch on its way to the loop, and the comparison before it is delivered.

Much is numbered at one end and looked up at the other, across processes that may be killed at any instruction. If the
two ends ever disagree, the result is a batch that looks right and is not. So a result carries its *label*: whose batch
it is, and of which layout. Whoever looks something up compares, and raises an
:class:`~workers.errors.IntegrityError` on a mismatch::

    what             its name                                   compared
    job              a sending, never used again in an engine   by the reader: label with what the schedule knows
    layout           the digest of its pickle                   by the reader: label with the layout it has
    slot             a number, never used again by a worker     by the reader: label; by the writer: each release
    item of a stream a number, never used again by a ring       by the worker: label
    replica          a number, one more each time it is sent    by the worker: each job names it
    shared memory    its inode, beside each descriptor          by the channel, as a message comes
    outcome          its place in the pass                      by the pass: the batch's index with the order
    batch from Ray   its job, beside it                         by the executor
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from workers.errors import integrity_error

from .tree import ALIGNMENT

Job = tuple[int, int, int]  # (sending, epoch, index), e.g. (17, 0, 4)


class Label(NamedTuple):
    """What lies in front of a batch in shared memory: Label(17, 0, 4, 0x9AE1F0334C5D2B70)."""

    sending: int  # of its job; of an item of a stream, the number of the item
    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    layout: int  # the digest of its Layout

    def __str__(self) -> str:
        return f"sending {self.sending}, batch {self.index} of epoch {self.epoch}, layout {self.layout:016x}"


LABEL = struct.Struct("<qqqQ")
LABEL_NBYTES = ALIGNMENT  # that it takes, so that the arrays behind it are aligned
_63_BITS = (1 << 63) - 1


def label_of(job: Job, layout: int) -> tuple[int, int, int, int]:
    """The fields of the label of a batch. An epoch may have any number of bits, of which the lowest count."""
    sending, epoch, index = job
    return sending, epoch & _63_BITS, index, layout


def check_label(found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raise an IntegrityError unless the label found in shared memory is the expected one."""
    if found != expected:
        raise integrity_error(
            f"what lies in shared memory is labelled ({Label._make(found)}), not ({Label._make(expected)})"
        )


def check_job(found: Job, expected: Job) -> None:
    """Raise an IntegrityError unless a result is that of the expected job."""
    if found != expected:
        names = ["sending {}, batch {} of epoch {}".format(*(job[at] for at in (0, 2, 1))) for job in (found, expected)]
        raise integrity_error(f"a worker has sent the result of ({names[0]}) for ({names[1]})")


def check_replica(found: int, expected: int, job: Job) -> None:
    """Raise an IntegrityError unless a worker has the replica of the sequence that a job belongs to."""
    if found != expected:
        _, epoch, index = job
        raise integrity_error(
            f"batch {index} of epoch {epoch} belongs to replica {expected} of the sequence, and the worker that was to "
            f"compute it has replica {found}"
        )
