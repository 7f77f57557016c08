"""Label each batch on its way to the loop, and check the label, so that a wrong batch is never delivered.

Jobs, slots and layouts are numbered in one process and looked up in another, and each may be killed at any instruction.
If the two ever disagreed, the loop could get a wrong batch that looks right. So each result carries a *label*: the
number of its *sending*, which is new each time a job is sent to a worker, and the digest of its *layout*, the structure
of the batch. Every look-up compares, and raises an :class:`~workers.errors.IntegrityError` on a mismatch::

    what             identified by                              compared
    job              a sending, unique within an engine         by the reader: label with message; also for Ray
    layout           the digest of its pickle                   by the reader: label with the known layout
    slot             a number, unique within a worker           by the reader: label; by the writer: each release
    item of a stream a number, unique within its item slots     by the worker: label
    replica          a number, one higher each time it is sent  by the worker: each job names its replica
    shared memory    its inode, sent with each descriptor       by the channel, when a message arrives
    outcome          its place in the pass                      by the pass: the batch's index with the order
"""

from __future__ import annotations

from typing import Any, NamedTuple

from workers.errors import integrity_error

from .tree import ALIGNMENT


class Label(NamedTuple):
    """The label that identifies a batch, stored in front of it in shared memory: Label(17, 0x9AE1F0334C5D2B70)."""

    sending: int  # the number under which its job was sent; for an item of a stream, the number of the item
    layout: int  # the digest of its Layout

    def __str__(self) -> str:
        return f"sending {self.sending}, layout {self.layout:016x}"


LABEL_NBYTES = ALIGNMENT  # reserved for a label, so that the arrays after it are aligned
WORD_NBYTES = 8


def words_of(buffer: Any) -> memoryview:
    """Return ``buffer``, a piece of shared memory, as a view of 64-bit words; a label takes two of them.

    Reading a label with ``struct`` would take twice as long.
    """
    return memoryview(buffer).cast("B").cast("Q")


def check_label(words: memoryview, at: int, sending: int, layout: int) -> None:
    """Raise IntegrityError unless the label at word ``at`` is that of the expected batch.

    Args:
        words: the shared memory that holds the batch, as 64-bit words.
        at: the index of the label's first word.
        sending: the number under which the job of the expected batch was sent to its worker.
        layout: the digest of the layout of the expected batch.
    """
    if words[at] != sending or words[at + 1] != layout:
        found, expected = Label(words[at], words[at + 1]), Label(sending, layout)
        raise integrity_error(f"data in shared memory is labelled ({found}), not ({expected})")


def check_sending(found: int, expected: int) -> None:
    """Raise IntegrityError unless a worker's result is that of the expected sending.

    Each time a job is sent to a worker, it gets a new number, its sending, which its result repeats.
    """
    if found != expected:
        raise integrity_error(f"a worker answered sending {expected} with the result of sending {found}")


def check_replica(found: int, expected: int, epoch: int, index: int) -> None:
    """Raise IntegrityError unless a worker has the replica of the sequence that a job belongs to.

    Args:
        found: the number of the worker's replica, which is its copy of the sequence.
        expected: the number that the job names, which is one higher each time the sequence is sent.
        epoch: the epoch of the job's batch.
        index: the index of the job's batch.
    """
    if found != expected:
        raise integrity_error(
            f"batch {index} of epoch {epoch} belongs to replica {expected} of the sequence, but the worker that "
            f"should compute it has replica {found}"
        )
