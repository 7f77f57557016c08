"""What identifies a batch on its way to the loop, and the comparison before it is delivered.

Much is numbered at one end and looked up at the other, across processes that may be killed at any instruction. If the
two ends ever disagree, the result is a batch that looks right and is not. So a result carries its *label*: whose batch
it is, and of which layout. Whoever looks something up compares, and raises an
:class:`~workers.errors.IntegrityError` on a mismatch::

    what             its name                                   compared
    job              a sending, never used again in an engine   by the reader: label with the message; Ray's too
    layout           the digest of its pickle                   by the reader: label with the layout it has
    slot             a number, never used again by a worker     by the reader: label; by the writer: each release
    item of a stream a number, never used again by a ring       by the worker: label
    replica          a number, one more each time it is sent    by the worker: each job names it
    shared memory    its inode, beside each descriptor          by the channel, as a message comes
    outcome          its place in the pass                      by the pass: the batch's index with the order
"""

from __future__ import annotations

from typing import Any, NamedTuple

from workers.errors import integrity_error

from .tree import ALIGNMENT


class Label(NamedTuple):
    """What lies in front of a batch in shared memory: Label(17, 0x9AE1F0334C5D2B70)."""

    sending: int  # of its job; of an item of a stream, the number of the item
    layout: int  # the digest of its Layout

    def __str__(self) -> str:
        return f"sending {self.sending}, layout {self.layout:016x}"


LABEL_NBYTES = ALIGNMENT  # that it takes, so that the arrays behind it are aligned
WORD_NBYTES = 8


def words_of(buffer: Any) -> memoryview:
    """Shared memory as words of 64 bits. A label takes two of them; ``struct`` would take twice as long to read it."""
    return memoryview(buffer).cast("B").cast("Q")


def check_label(words: memoryview, at: int, sending: int, layout: int) -> None:
    """Raise an IntegrityError unless the label at word ``at`` is the expected one."""
    if words[at] != sending or words[at + 1] != layout:
        found, expected = Label(words[at], words[at + 1]), Label(sending, layout)
        raise integrity_error(f"what lies in shared memory is labelled ({found}), not ({expected})")


def check_sending(found: int, expected: int) -> None:
    """Raise an IntegrityError unless a result is that of the expected sending."""
    if found != expected:
        raise integrity_error(f"a worker has answered sending {expected} with the result of sending {found}")


def check_replica(found: int, expected: int, epoch: int, index: int) -> None:
    """Raise an IntegrityError unless a worker has the replica of the sequence that a job belongs to."""
    if found != expected:
        raise integrity_error(
            f"batch {index} of epoch {epoch} belongs to replica {expected} of the sequence, and the worker that was to "
            f"compute it has replica {found}"
        )
