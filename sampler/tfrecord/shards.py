"""What is known of a folder of shards before anything of it is read: files, records, classes.

A shard is a TFRecord file whose records lie in blocks of one class. What :func:`sampler.write_class_shards` has written
has an ``index.json`` beside it. Of other files the records are counted: by their lengths, which stand before each, or,
if they are compressed, by reading them.

A record in its file: its length (8 bytes), a checksum of that (4), the data, a checksum of these (4). Source:
TensorFlow, "TFRecords format details".
"""

from __future__ import annotations

import fnmatch
import json
import logging
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from workers.checks import check_choice, check_int

logger = logging.getLogger("sampler")

INDEX = "index.json"
COMPRESSIONS = (None, "", "GZIP", "ZLIB")

_HEADER = struct.Struct("<Q4x")
_FOOTER_NBYTES = 4
_READ_AT_ONCE = 1 << 20


class Shard(NamedTuple):
    """A file of records."""

    path: str
    num_records: int
    nbytes: int
    classes: tuple[str, ...] = ()  # whose records it holds; (): not known


def find_shards(
    shard_path: str | os.PathLike[str],
    shard_suffix: str,
    compression: str | None,
    on_error: str = "raise",
    example_per_class: int = 1,
) -> list[Shard]:
    """The shards of a folder, in the order of their names.

    Args:
        on_error: ``"skip"``: all are read to their ends; those that cannot be are left out, counted and logged.
        example_per_class: how many records each must have at least.

    Raises:
        ValueError: there are none, or one cannot be used; names the pattern and the folder, or the file and why.
    """
    from workers.sequence.progress import Bar

    check_choice("compression", compression, COMPRESSIONS)
    check_choice("on_error", on_error, ("raise", "skip"))
    folder = os.fspath(shard_path)
    paths = find_paths(folder, shard_suffix)
    known = read_index(folder)
    there = {os.path.basename(path) for path in paths}
    missing = sorted(name for name in known if name not in there and fnmatch.fnmatch(name, shard_suffix))
    if missing and on_error == "raise":
        raise ValueError(
            f"{os.path.join(folder, missing[0])!r} is in {INDEX}, but not there ({len(missing)} such): copy it again, "
            f'or take it out of {INDEX}; or leave such shards out by on_error="skip"'
        )

    def shard(path: str) -> Shard | str:
        """The shard, or why it is left out."""
        try:
            found = _shard(path, known.get(os.path.basename(path)), compression)
            _check_size(found, example_per_class)
            if on_error == "skip" and count_by_reading(path, compression) != found.num_records:
                return ""
            return found
        except ValueError as error:
            if on_error == "raise":
                raise
            return f" ({error})"

    with ThreadPoolExecutor() as threads:
        shards = list(Bar(threads.map(shard, paths), total=len(paths), desc="counting records", unit=" shards"))
    bad = [path + each for path, each in zip(paths, shards, strict=True) if isinstance(each, str)]
    bad += [f"{os.path.join(folder, name)} (is in {INDEX}, but not there)" for name in missing]
    if bad:
        names, number = ", ".join(bad), len(paths) + len(missing)
        logger.error("%d of %d shards are left out, for they are cut short or corrupt: %s", len(bad), number, names)
    return [each for each in shards if isinstance(each, Shard)]


def part_of(shards: list[Shard], shard: tuple[int, int]) -> list[Shard]:
    """Every ``world``-th, beginning with number ``rank``, of ``shard`` = (rank, world)."""
    if not isinstance(shard, (tuple, list)) or len(shard) != 2:
        raise TypeError(f"shard must be None or (rank, world), not {shard!r}")
    world = check_int("world of shard", shard[1], 1)
    rank = check_int("rank of shard", shard[0], 0)
    if rank >= world:
        raise ValueError(f"rank of shard must be 0 to {world - 1}, not {rank}")
    return shards[rank::world]


def find_paths(folder: str, shard_suffix: str) -> list[str]:
    """The files of ``folder`` whose names match ``shard_suffix``, in order; ValueError if there are none."""
    import tensorflow as tf

    paths = sorted(tf.io.gfile.glob(tf.io.gfile.join(folder, shard_suffix)))
    if not paths:
        raise ValueError(f"no file matches shard_suffix {shard_suffix!r} in {folder!r}, the shard_path")
    return paths


def read_index(folder: str) -> dict[str, Any]:
    """{name of a shard: what ``index.json`` says of it}; {} if there is none.

    Raises:
        ValueError: it is damaged; names it.
    """
    import tensorflow as tf

    path = tf.io.gfile.join(folder, INDEX)
    if not tf.io.gfile.exists(path):
        return {}
    check_is_file(path)
    try:
        with tf.io.gfile.GFile(path) as file:
            shards: dict[str, Any] = json.load(file)["shards"]
        for name, said in shards.items():
            if not (type(said["records"]) is type(said["nbytes"]) is int and isinstance(said["classes"], dict)):
                raise TypeError(f"what it says of {name} is {said!r:.200}")
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # no JSON, or not what was written
        raise ValueError(
            f"{path!r} is damaged ({type(error).__name__}: {error}): copy it again, or remove it to have the records "
            "counted (which classes the shards are of is not known then)"
        ) from error
    return shards


def check_is_file(path: str) -> None:
    """Raises ValueError: a local ``path`` is no file that can be read to an end, such as a named pipe or a folder."""
    if os.path.exists(path) and not os.path.isfile(path):
        kind = "a folder" if os.path.isdir(path) else "a named pipe, a socket or a device"
        raise ValueError(f"{path!r} is {kind}, not a file: move it elsewhere, or have shard_suffix not match it")


def _shard(path: str, known: Any, compression: str | None) -> Shard:
    import tensorflow as tf

    check_is_file(path)
    nbytes = tf.io.gfile.stat(path).length
    if known is not None and known["nbytes"] == nbytes:
        return Shard(path, known["records"], nbytes, tuple(known["classes"]))
    if known is not None:
        logger.warning(
            "%s has %d bytes, not %d as %s says: its records are counted, and which class it is of is not known",
            path,
            nbytes,
            known["nbytes"],
            INDEX,
        )
    return Shard(path, count_by_reading(path, compression) if compression else count_records(path, nbytes), nbytes)


def _check_size(shard: Shard, example_per_class: int) -> None:
    if shard.num_records < example_per_class:
        has = f"{shard.num_records} records ({shard.nbytes:,} bytes)" if shard.num_records else "no records"
        raise ValueError(
            f"{shard.path!r} has {has}, fewer than the {example_per_class} of a block (example_per_class): it was not "
            'written to its end, or not in blocks; write it anew or remove it, or leave it out by on_error="skip"'
        )


def count_records(path: str, nbytes: int) -> int:
    """How many records an uncompressed file has, by their lengths alone.

    Raises:
        ValueError: it is cut short, or no TFRecord file.
    """
    import tensorflow as tf

    is_local = os.path.exists(path)
    count, offset = 0, 0
    with open(path, "rb") if is_local else tf.io.gfile.GFile(path, "rb") as file:
        buffer, begins = b"", 0  # what was read, and where in the file that begins
        while offset < nbytes:
            if not begins <= offset <= begins + len(buffer) - _HEADER.size:
                file.seek(offset)
                buffer, begins = file.read(_READ_AT_ONCE), offset
                if len(buffer) < _HEADER.size:
                    break
            (length,) = _HEADER.unpack_from(buffer, offset - begins)
            end = offset + _HEADER.size + length + _FOOTER_NBYTES
            if end > nbytes:
                break
            count, offset = count + 1, end
    if offset != nbytes:
        raise ValueError(
            f"{path!r} is cut short, or no TFRecord file: record {count}, at byte {offset}, ends behind it"
        )
    return count


def count_by_reading(path: str, compression: str | None) -> int:
    """How many records a file has, by reading it.

    Raises:
        ValueError: it cannot be read to its end.
    """
    import tensorflow as tf

    count = 0
    records = tf.data.TFRecordDataset(path, compression or "").batch(1024)
    try:
        for some in records:
            count += int(some.shape[0])
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        what = f"{path!r} cannot be read with compression {compression} behind record {count}"
        raise ValueError(f"{what}: {error.message}") from error
    return count
