"""The shards of a folder: their files, numbers of records and classes, found before any batch is read.

A shard is a TFRecord file whose records form blocks of one class. :func:`sampler.write_class_shards` writes an
``index.json`` next to its shards. The records of other files are counted: by the length in front of each record or, if
the file is compressed, by reading it.

A record in a file is its length (8 bytes), a checksum of the length (4), the data, and a checksum of the data (4).
Source: TensorFlow, "TFRecords format details".
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
    """A TFRecord file and what is known of it: Shard("shards/a.tfrec", 1000, 816000, ("cat",))."""

    path: str
    num_records: int
    nbytes: int
    classes: tuple[str, ...] = ()  # the classes of its records; (): unknown


def find_shards(
    shard_path: str | os.PathLike[str],
    shard_suffix: str,
    compression: str | None,
    on_error: str = "raise",
    example_per_class: int = 1,
) -> list[Shard]:
    """Return the shards (TFRecord files) of a folder, in the order of their names.

    Args:
        on_error: ``"skip"``: read all shards to their ends; leave out, count and log those that cannot be used.
            ``"raise"``: raise ValueError for the first such shard.
        example_per_class: the minimum number of records of each shard.

    Raises:
        ValueError: there are none, or one cannot be used; the error names the pattern and the folder, or the file and
            the reason.
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
            f"{os.path.join(folder, missing[0])!r} is in {INDEX}, but does not exist ({len(missing)} such): copy it "
            f'again, or remove it from {INDEX}; or leave such shards out with on_error="skip"'
        )

    def shard(path: str) -> Shard | str:
        """Return the shard in file ``path``, or, as text, the reason for leaving it out."""
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
    bad += [f"{os.path.join(folder, name)} (is in {INDEX}, but does not exist)" for name in missing]
    if bad:
        names, number = ", ".join(bad), len(paths) + len(missing)
        logger.error("%d of %d shards are cut short, corrupt or missing, and are left out: %s", len(bad), number, names)
    return [each for each in shards if isinstance(each, Shard)]


def part_of(shards: list[Shard], shard: tuple[int, int]) -> list[Shard]:
    """Return the shards for one of ``world`` processes: every ``world``-th of ``shards``, from number ``rank`` on.
    ``shard`` is (rank, world)."""
    if not isinstance(shard, (tuple, list)) or len(shard) != 2:
        raise TypeError(f"shard must be None or (rank, world), not {shard!r}")
    world = check_int("world of shard", shard[1], 1)
    rank = check_int("rank of shard", shard[0], 0)
    if rank >= world:
        raise ValueError(f"rank of shard must be 0 to {world - 1}, not {rank}")
    return shards[rank::world]


def find_paths(folder: str, shard_suffix: str) -> list[str]:
    """Return the paths of the files in ``folder`` that match ``shard_suffix``, sorted; ValueError if there are none."""
    import tensorflow as tf

    paths = sorted(tf.io.gfile.glob(tf.io.gfile.join(folder, shard_suffix)))
    if not paths:
        raise ValueError(f"no file matches shard_suffix {shard_suffix!r} in {folder!r}, the shard_path")
    return paths


def read_index(folder: str) -> dict[str, Any]:
    """Return {name of a shard: its entry}, read from ``index.json`` in ``folder``; {} if there is no such file.

    Raises:
        ValueError: it is damaged; the error names it.
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
                raise TypeError(f"the entry of {name} is {said!r:.200}")
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # not JSON, or not of this form
        raise ValueError(
            f"{path!r} is damaged ({type(error).__name__}: {error}): copy it again, or remove it; then the records are "
            "counted, and the classes of the shards are unknown"
        ) from error
    return shards


def check_is_file(path: str) -> None:
    """Raise ValueError if a local ``path`` is not a file that can be read to its end, but e.g. a folder or a pipe."""
    if os.path.exists(path) and not os.path.isfile(path):
        kind = "a folder" if os.path.isdir(path) else "a named pipe, a socket or a device"
        raise ValueError(f"{path!r} is {kind}, not a file: move it elsewhere, or exclude it by shard_suffix")


def _shard(path: str, known: Any, compression: str | None) -> Shard:
    import tensorflow as tf

    check_is_file(path)
    nbytes = tf.io.gfile.stat(path).length
    if known is not None and known["nbytes"] == nbytes:
        return Shard(path, known["records"], nbytes, tuple(known["classes"]))
    if known is not None:
        logger.warning(
            "%s has %d bytes, not %d as %s says: its records are counted, and its class is unknown",
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
            'written to its end, or not in blocks; write it again, remove it, or leave it out with on_error="skip"'
        )


def count_records(path: str, nbytes: int) -> int:
    """Return the number of records of an uncompressed file, by reading only the length in front of each record.

    Raises:
        ValueError: it is cut short, or not a TFRecord file.
    """
    import tensorflow as tf

    is_local = os.path.exists(path)
    count, offset = 0, 0
    with open(path, "rb") if is_local else tf.io.gfile.GFile(path, "rb") as file:
        buffer, begins = b"", 0  # the bytes read last, and their position in the file
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
            f"{path!r} is cut short, or not a TFRecord file: record {count}, at byte {offset}, is longer than the rest"
        )
    return count


def count_by_reading(path: str, compression: str | None) -> int:
    """Return the number of records of a TFRecord file, by reading all of it.

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
        what = f"{path!r} cannot be read with compression {compression} after {count} records"
        raise ValueError(f"{what}: {error.message}") from error
    return count
