"""Finds the function that made two runs of a job differ, from their records, and what to write instead."""

from __future__ import annotations

import os

from .probe import JobRecord, Returned

_SEED = "draw from workers.current_rng(), which is seeded by (seed, epoch, batch)"
_GENERATOR = f"{_SEED}, or make the generator once, in __init__, where it is found and seeded"
#: {a name in the code of a function: what to write instead}, if its result is another one each time.
_NOT_SEEDED = {
    "default_rng": _GENERATOR,
    "RandomState": _GENERATOR,
    "Generator": _GENERATOR,
    "SystemRandom": _SEED,
    "urandom": _SEED,
    "getrandom": _SEED,
    "secrets": _SEED,
    **dict.fromkeys(("uuid1", "uuid4"), "make the name from workers.current_job(), or from current_rng().bytes(16)"),
    **dict.fromkeys(
        ("time_ns", "perf_counter", "monotonic", "now", "today", "utcnow", "time"),
        "leave the time out of the batch, or store it with the data",
    ),
}
#: {a name in the code of a function: what to write instead}, if its result is another one in a worker.
_OF_A_PROCESS = {
    **dict.fromkeys(
        ("getpid", "getppid", "current_process", "parent_process", "current_thread", "get_ident", "process_time"),
        "do not let a batch depend on the process or thread that computes it",
    ),
    "current_job": "let a batch depend on epoch and index of current_job() alone, not on its worker or attempt",
    **dict.fromkeys(
        ("environ", "getenv", "getcwd", "argv", "cpu_count"),
        "read this once, in __init__, and keep it in the sequence, which is sent to the workers",
    ),
}

_HASHES = "hash", "set", "frozenset"
_OF_HASHES = (
    "It uses a set or a hash: those of strings depend on PYTHONHASHSEED, which is 0 in workers. Sort what comes out of "
    "a set, use zlib.crc32 in place of hash, or start the program with PYTHONHASHSEED=0."
)
_OF_MODULES = (
    "Workers import your modules anew: set this when the module is imported, keep it in the sequence, or set it in "
    "worker_init_fn=..."
)

_Setting = tuple[str, str, str]  # (name, its value in the program, its value in a worker)


def first_other(mine: list[JobRecord], theirs: list[JobRecord]) -> Returned | None:
    """Return the first function that has returned another value in ``theirs``, the same jobs; None if there is none.
    It is one of the user's, or was called by one, if any of these differ."""
    of_index = {each.index: each for each in theirs}
    pairs = [(one, of_index[one.index]) for one in mine if one.index in of_index]
    for is_users in (True, False):
        for one, other in pairs:
            for here, there in zip(_of(one, is_users), _of(other, is_users), strict=False):
                if here.function[:3] != there.function[:3] or here.value != there.value:
                    return here
    return None


def _of(record: JobRecord, is_users: bool) -> list[Returned]:
    return [each for each in record.returned if (each.by is not None) == is_users]


def is_read_otherwise(mine: list[JobRecord], theirs: list[JobRecord]) -> bool:
    """Return True if a job was sent another item in ``theirs``."""
    items = {each.index: each.item for each in theirs}
    return any(items.get(each.index, each.item) != each.item for each in mine)


def who(found: Returned) -> str:
    """Return the function to blame, in words: ``noise (crops.py, line 12), which calls SystemRandom.random``."""
    place = found.by or found.function
    by = f"{place.name} ({os.path.basename(place.file)}, line {place.line})"
    is_told = place[:3] == found.function[:3] or _known(found, _NOT_SEEDED)[0]  # what it calls
    return by if is_told else f"{by}, which calls {found.function.name}"


def instead_of_draws(found: Returned | None) -> str:
    """Return what to write instead of a function whose result is another one each time."""
    name, advice = _known(found, _NOT_SEEDED)
    if name:
        return f"It uses {name}: {advice}."
    return (
        f"If it draws random numbers, {_SEED}. If it counts calls, or keeps what it has seen, compute that from the "
        "index and workers.current_job().epoch."
    )


def of_settings(found: Returned | None, settings: list[_Setting]) -> tuple[list[_Setting] | None, str]:
    """Return (those of the differing ``settings`` to name, what to write instead), for a function whose result is
    another one in a worker. None in place of the settings if the cause is known to be none of them."""
    places = [] if found is None else [each for each in (found.by, found.function) if each is not None]
    names = {name for place in places for name in place.names}
    used = [each for each in settings if each[0].rpartition(".")[2] in names]
    used += [each for each in settings if each[0] == "the current folder" and "getcwd" in names]
    name, advice = _known(found, _OF_A_PROCESS)
    if name:
        return used or None, f"It uses {name}: {advice}."
    if used:
        return used, _OF_MODULES
    if names & set(_HASHES):
        return None, _OF_HASHES
    return settings, _OF_MODULES


def _known(found: Returned | None, table: dict[str, str]) -> tuple[str, str]:
    """Return the first row of ``table`` whose name the functions in ``found`` have or use; ("", "") if none do."""
    places = [] if found is None else [each for each in (found.by, found.function) if each is not None]
    names = {name for place in places for name in (*place.names, *place.name.split("."))}
    return next(((name, advice) for name, advice in table.items() if name in names), ("", ""))
