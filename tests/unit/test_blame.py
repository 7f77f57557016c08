"""What ``workers.check`` says of two records of the same job: which function is to blame, and what to write instead."""

from __future__ import annotations

import pytest

from workers.checkup import blame
from workers.checkup.probe import Code, JobRecord, Returned
from workers.checkup.surroundings import Opened

NOTHING = Opened({}, 0, 1)
OUTER, INNER, OTHER = (
    Code("outer", "a/b.py", 1),
    Code("inner", "a/b.py", 9, ("lib", "draw")),
    Code("other", "c.py", 3),
)
LIBRARY = Code("Pool.draw", "lib.py", 2)


def record(*returned: Returned, index: int = 0, item: int = 0) -> JobRecord:
    return JobRecord(index, None, "", item, list(returned), [], {}, NOTHING, NOTHING)


def test_the_first_function_that_differs() -> None:
    """The inner one returns first; a function that one of them has not called differs too."""
    one = [record(index=1), record(Returned(OTHER, OTHER, 1), Returned(INNER, INNER, 2), Returned(OUTER, OUTER, 3))]
    two = [record(Returned(OTHER, OTHER, 1), Returned(INNER, INNER, 8), Returned(OUTER, OUTER, 9))]
    assert blame.first_other(one, one) is None
    by_engine = [record(Returned(LIBRARY, None, 5), *one[1].returned)]
    assert blame.first_other(by_engine, one) is None
    assert blame.first_other(by_engine, [record(Returned(LIBRARY, None, 6), *two[0].returned)]) == Returned(
        INNER, INNER, 2
    )
    assert blame.first_other(by_engine, [record(Returned(LIBRARY, None, 6))]) == Returned(LIBRARY, None, 5)
    assert blame.first_other(one, two) == Returned(INNER, INNER, 2)
    assert blame.first_other(one, [record(Returned(OUTER, OUTER, 3))]) == Returned(OTHER, OTHER, 1)
    assert blame.is_read_otherwise([record(item=1)], [record(item=2)])
    assert not blame.is_read_otherwise(one, two)


def test_who_is_to_blame() -> None:
    assert blame.who(Returned(INNER, INNER, 0)) == "inner (b.py, line 9)"
    assert blame.who(Returned(LIBRARY, INNER, 0)) == "inner (b.py, line 9), which calls Pool.draw"
    assert blame.who(Returned(LIBRARY, None, 0)) == "Pool.draw (lib.py, line 2)"


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("uuid", "uuid4"), "It uses uuid4: make the name from workers.current_job()"),
        (("time", "time_ns"), "It uses time_ns: leave the time out"),
        (("time",), "It uses time: leave the time out"),
        (("np", "random", "default_rng"), "It uses default_rng: draw from workers.current_rng()"),
        (("shuffle",), "If it draws random numbers, draw from workers.current_rng()"),
    ],
)
def test_instead_of_draws(names: tuple[str, ...], text: str) -> None:
    code = OUTER._replace(names=names)
    assert blame.instead_of_draws(Returned(code, code, 0)).startswith(text)


def test_instead_of_settings() -> None:
    """Settings that the function names come alone; all of them, if nothing is known."""
    scale, other = ("a.SCALE", "2", "1"), ("a.OTHER", "3", "4")
    for names, settings, text in [
        (("SCALE",), [scale], "Workers import your modules anew"),
        (("x",), [scale, other], "Workers import your modules anew"),
        (("os", "getpid"), None, "It uses getpid: do not let"),
        (("os", "environ", "SCALE"), [scale], "It uses environ: read this once"),
        (("hash",), None, "It uses a set or a hash"),
    ]:
        code = OUTER._replace(names=names)
        found, instead = blame.of_settings(Returned(code, code, 0), [scale, other])
        assert (found, instead[: len(text)]) == (settings, text)
    assert blame.of_settings(None, [])[0] == []
