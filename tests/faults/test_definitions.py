"""What a script defines, in workers, which do not run the script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from faulty import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, script: str) -> str:
    """What a script has written that is to end well."""
    (folder / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, str(folder / "script.py")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'support'}"},
        cwd=folder,
        timeout=2 * PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


DECORATED = """
import functools, typing
import numpy as np
from any_workers import WORKERS, epochs_on
from workers import Sequence

@functools.lru_cache
def doubled(x):
    return 2 * x

@functools.cache
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

@functools.lru_cache(maxsize=3, typed=True)
def measured(x):
    return x
measured.unit = "mm"

@functools.singledispatch
def shown(x):
    return "something"

@shown.register
def _(x: int):
    return f"{x}, not {shown('a')}"

@shown.register(list)
def _(x):
    return [shown(each) for each in x]
shown.of = "numbers"

class Thing:
    factor = 3
    @functools.cached_property
    def value(self):
        return 5 * self.factor
    @functools.lru_cache(maxsize=4)
    def times(self, x):
        return x * self.factor
    @staticmethod
    @functools.cache
    def fourfold(x):
        return 4 * x
    @functools.singledispatchmethod
    def kind(self, x):
        return "other"
    @kind.register
    def _(self, x: int):
        return "int"

class Property(functools.cached_property):
    pass

class Other:
    def __init__(self):
        self.cached = functools.lru_cache(self.method)
    def method(self, x):
        return x + self.value
    @Property
    def value(self):
        return 7

def remembered(function):
    @functools.wraps(function)
    @functools.lru_cache
    def inner(*arguments):
        return function(*arguments) + 100
    return inner

@remembered
def hundred(x):
    return x

def retried(num):
    def decorate(function):
        @functools.wraps(function)
        def inner(*arguments):
            for _ in range(num):
                try:
                    return function(*arguments)
                except ValueError:
                    pass
        return inner
    return decorate

calls = []
@retried(3)
def failing(x):
    calls.append(x)
    if len(calls) % 3:
        raise ValueError(x)
    return x

sums = np.frompyfunc(lambda a, b: a + b, 2, 1, identity=0)
pairs = np.frompyfunc(lambda a: (a, doubled(a)), 1, 2)
vectorized = np.vectorize(lambda a: a + 1)
vectorized(np.arange(2))
partial = functools.lru_cache(functools.partial(int, base=10))

class Missing:
    def __reduce__(self):
        return "MISSING"
MISSING = Missing()

class Slots:
    __slots__ = ("x",)
    def __init__(self):
        self.x = 3
    def __reduce__(self):
        return "SLOTS"
SLOTS = Slots()
User = typing.NewType("User", int)
thing, other = Thing(), Other()
thing.value

def all_of(index):
    text = [shown(index), shown([index, "a"]), shown.of, thing.kind(index), thing.kind("a"), measured.unit]
    numbers = [doubled(index), fibonacci(index), measured(index), thing.value, Thing().value, thing.times(index)]
    numbers += [Thing.fourfold(index), other.cached(index), hundred(index), failing(index), User(index), SLOTS.x]
    numbers += [sums.reduce([index, 1, 2]), sums.reduce([]), *pairs(index), int(vectorized(index)), partial("12")]
    again = doubled.cache_parameters(), measured.cache_parameters(), fibonacci.__wrapped__.__name__, MISSING is MISSING
    return text, [int(number) for number in numbers], repr(again)

class All(Sequence):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        doubled(index)
        return all_of(index)

if __name__ == "__main__":
    doubled(1), shown(1)  # caches are not sent
    expected = [all_of(index) for index in range(4)] * 2
    for nb_workers, executor in WORKERS:
        got = epochs_on(All(), nb_workers, executor)
        got = [(list(text), list(numbers), str(again)) for epoch in got for text, numbers, again in epoch]
        assert got == expected, (nb_workers, got[0], expected[0])
    print("done")
"""


def test_decorated_functions(tmp_path: Path) -> None:
    """And objects that go by a name of the script: workers have what they wrap, on any number of workers."""
    assert run(tmp_path, DECORATED) == "done\n"


REFUSED = """
import functools, threading
from workers import NotPicklableError, Sequence

class Locked:
    def __init__(self, function):
        self.function, self.lock = function, threading.Lock()
        functools.update_wrapper(self, function)
    def __call__(self, x):
        with self.lock:
            return self.function(x)

@Locked
def locked(x):
    return x

class Uses(Sequence):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return locked(index)

if __name__ == "__main__":
    assert [*Uses().prefetch(nb_workers=0)] == [0, 1, 2, 3]
    try:
        Uses().prefetch(nb_workers=1)
    except NotPicklableError as error:
        print(error)
"""


def test_a_decorator_that_cannot_be_sent(tmp_path: Path) -> None:
    """The error names the function, and says what to do."""
    said = run(tmp_path, REFUSED)
    assert "global 'locked'.lock cannot be sent" in said
    assert "in a module of its own" in said


NAMED = """
import collections, contextlib, dataclasses, enum, functools, io, multiprocessing, os, pickle, typing
import numpy as np
from any_workers import WORKERS, epochs_on
from workers import Sequence

class Thing:
    def __init__(self, x):
        self.x = x

class Slots:
    __slots__ = ("x",)
    def __init__(self, x):
        self.x = x

@dataclasses.dataclass(frozen=True)
class Data:
    x: int

class Color(enum.Enum):
    RED = 1

class Pair(typing.NamedTuple):
    x: int

Plain = collections.namedtuple("Plain", "x")

class Failure(Exception):
    pass

class Missing:
    def __reduce__(self):
        return "MISSING"
MISSING = Missing()

def double(thing):
    return Thing(2 * thing.x)

@functools.lru_cache
def cached(x):
    return x

def main(x):
    return x

KINDS = [Thing, Slots, Data, Pair, Plain, Failure]

class Reads(Sequence):
    needs = Color, double, cached, main, MISSING
    kinds = KINDS
    def __len__(self):
        return 4
    def __getitem__(self, index):
        with open("things.pickle", "rb") as file:
            things = pickle.load(file)
        assert [type(thing) for thing in things[:6]] == self.kinds
        assert all(thing is known for thing, known in zip(things[6:], (Color.RED, double, cached, main, MISSING)))
        loaded = np.load("things.npy", allow_pickle=True)
        assert type(loaded[0]) is Thing
        file = io.BytesIO()
        pickle.dump([kind(index) for kind in self.kinds] + [double, cached, main, MISSING], file)
        with open(f"of_{os.getpid()}.pickle", "wb") as written:
            written.write(file.getvalue())
        if index == 1:
            with multiprocessing.get_context("fork").Pool(1) as pool:
                assert [thing.x for thing in pool.map(double, [Thing(3), Thing(4)])] == [6, 8]
        return things[0].x + loaded[0].x + index, MISSING, Thing(index)

if __name__ == "__main__":
    with open("things.pickle", "wb") as file:
        pickle.dump([*(kind(7) for kind in KINDS), Color.RED, double, cached, main, MISSING], file)
    np.save("things.npy", np.array([Thing(5)], object))
    for nb_workers, executor in WORKERS:
        if (nb_workers, executor) == (2, "thread"):
            continue  # the pool of multiprocessing would fork beside its threads
        for epoch in epochs_on(Reads(), nb_workers, executor):
            assert [number for number, _, _ in epoch] == [12, 13, 14, 15]
            assert all(missing is MISSING and type(thing) is Thing for _, missing, thing in epoch)
        for name in os.listdir("."):
            if name.startswith("of_"):
                with open(name, "rb") as file:
                    written = pickle.load(file)
                assert [type(each) for each in written[:6]] == KINDS
                assert written[6:] == [double, cached, main, MISSING]
    print("done")
"""


def test_pickles_that_name_what_the_script_defines(tmp_path: Path) -> None:
    """Jobs read and write them as the script does."""
    assert run(tmp_path, NAMED) == "done\n"


HINTED = """
import getpass
from any_workers import WORKERS, epochs_on
from workers import Sequence

def asks():
    return input("which? ")

def asks_for_a_password():
    return getpass.getpass()

def stops():
    breakpoint()

class Does(Sequence):
    def __init__(self, what):
        super().__init__()
        self.what = what
    def __len__(self):
        return 4
    def __getitem__(self, index):
        if index == 3:
            self.what()
        return index

if __name__ == "__main__":
    for what, nb_workers in ((asks, 1), (asks_for_a_password, 1), (stops, "auto")):
        try:
            epochs_on(Does(what), nb_workers, "process", epochs=1)
        except Exception as error:
            print()
            print("#", what.__name__, type(error).__name__, str(error))
"""


def test_a_debugger_and_input(tmp_path: Path) -> None:
    """A worker has no standard input: the error says what to do instead."""
    said = [line for line in run(tmp_path, HINTED).splitlines() if line.startswith("#")]
    assert [line.split()[1:3] for line in said] == [
        ["asks", "EOFError"],
        ["asks_for_a_password", "EOFError"],
        ["stops", "BdbQuit"],
    ]
    assert all("nb_workers=0" in line for line in said)


UNNAMED = """
import pickle, sys
from workers import Sequence

class Unnamed:
    pass

class Reads(Sequence):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        with open("unnamed.pickle", "rb") as file:
            return type(pickle.load(file)).__name__

if __name__ == "__main__":
    with open("unnamed.pickle", "wb") as file:
        pickle.dump(Unnamed(), file)
    assert [*Reads().prefetch(nb_workers=0)] == ["Unnamed"] * 4
    try:
        [*Reads().prefetch(nb_workers=1)]
    except AttributeError as error:
        print(error)
"""


def test_a_pickle_that_names_what_was_not_sent(tmp_path: Path) -> None:
    """The error says how to have it sent."""
    said = run(tmp_path, UNNAMED)
    assert "'Unnamed'" in said
    assert "Have the sequence refer to it" in said
