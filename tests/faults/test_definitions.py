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
