"""Label each batch on its way to the loop, and check the label, so that a wrong batch is never delivered.

Jobs, slots and layouts are numbered in one process and looked up in another, and either process may be killed at any
moment. If their records ever disagreed, the loop could get a wrong batch that looks right. So each result carries a
*label*: its *sending*, a number that is new each time a job is sent to a worker, and the digest of its *layout*, the
structure of the batch. Every look-up compares these, and raises :class:`~workers.errors.IntegrityError` on a mismatch::

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
    """The identity of a batch, stored before its arrays in shared memory, e.g. Label(sending=17, layout=0x9AE1...)."""

    sending: int  # the number under which its job was sent; for an item of a stream, the item's number
    layout: int  # the digest of its Layout

    def __str__(self) -> str:
        return f"sending {self.sending}, layout {self.layout:016x}"


LABEL_NBYTES = ALIGNMENT  # reserved for a label, so that the arrays after it are aligned
WORD_NBYTES = 8


def words_of(buffer: Any) -> memoryview:
    """Return a view of the shared memory ``buffer`` as 64-bit words; a label consists of two words.

    Reading a label with ``struct`` would take twice as long.
    """
    return memoryview(buffer).cast("B").cast("Q")


def check_label(words: memoryview, at: int, sending: int, layout: int) -> None:
    """Raise IntegrityError unless the label found in shared memory belongs to the expected batch or stream item.

    Args:
        words: the shared memory that holds the batch, as 64-bit words.
        at: the index in ``words`` of the label's first word.
        sending: the number under which the job of the expected batch, or the expected stream item, was sent.
        layout: the digest of the expected layout.
    """
    if words[at] != sending or words[at + 1] != layout:
        found, expected = Label(words[at], words[at + 1]), Label(sending, layout)
        raise integrity_error(f"data in shared memory is labelled ({found}), not ({expected})")


def check_sending(found: int, expected: int) -> None:
    """Raise IntegrityError unless a worker's result repeats the number under which its job was sent.

    That number is new each time a job is sent, so the results of two attempts at one job cannot be confused.
    """
    if found != expected:
        raise integrity_error(f"a worker answered sending {expected} with the result of sending {found}")


def check_replica(found: int, expected: int, epoch: int, index: int) -> None:
    """Raise IntegrityError unless a worker has the version of the sequence that a job needs.

    Args:
        found: the number of the worker's replica, which is its copy of the sequence.
        expected: the number of the replica that the job needs; it rises by one each time the sequence is sent.
        epoch: the epoch of the job's batch, for the error message.
        index: the index of the job's batch, for the error message.
    """
    if found != expected:
        raise integrity_error(
            f"batch {index} of epoch {epoch} belongs to replica {expected} of the sequence, but the worker that "
            f"should compute it has replica {found}"
        )
