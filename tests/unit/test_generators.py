"""Random generators that a sequence holds: where they are found, and which of them draw the same."""

from __future__ import annotations

import collections
import functools
import gc
import pickle
import random
import shelve
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest

from workers.job import data_only, generators, walk
from workers.job.generators import Generators, History
from workers.job.stream import Stream
from workers.job.task import Task

BITS = [np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.SFC64, np.random.MT19937]


class Holder:
    """An object with the attributes that it is given."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def seeded(source: Any, index: int = 0) -> Generators:
    """The generators of ``source``, as job ``index`` has them."""
    found = Generators(lambda: [("source", source)])
    found.begin(0)
    stream = Stream(1, found)
    stream.begin(0, index)
    stream.seed_held_generators()
    return found


def paths(found: Generators) -> list[str]:
    return [path for path in found._found if path.startswith("source")]


# -- bit generators


@pytest.mark.parametrize("kind", BITS)
def test_a_bare_bit_generator_is_seeded(kind: Any) -> None:
    bits = kind(5)
    found = seeded(Holder(bits=bits), 3)
    restore = found.save()
    drawn = bits.random_raw(3).tolist()
    seeded(Holder(bits=kind(6)), 3)
    assert paths(found) == ["source.bits"]
    for back in restore:
        back()
    assert bits.random_raw(3).tolist() == drawn
    other = kind(7)
    seeded(Holder(bits=other), 3)
    assert other.random_raw(3).tolist() == drawn  # wherever it stood before
    seeded(Holder(bits=other), 4)
    assert other.random_raw(3).tolist() != drawn


@pytest.mark.parametrize("kind", BITS)
@pytest.mark.parametrize("over", [np.random.Generator, np.random.RandomState])
@pytest.mark.parametrize("first", ["a_bits", "z_bits"])
def test_a_generator_over_a_bit_generator_that_is_held_too(kind: Any, over: Any, first: str) -> None:
    """It draws what it draws where its bit generator is held by nobody else."""
    alone = over(kind(5))
    seeded(Holder(m_generator=alone))
    bits = kind(5)
    generator = over(bits)
    found = seeded(Holder(**{"m_generator": generator, first: bits}))
    assert paths(found) == ["source.m_generator"]
    assert generator.normal(size=3).tolist() == alone.normal(size=3).tolist()


def test_a_bit_generator_of_the_same_seed_as_a_generator() -> None:
    """They draw the same numbers, and the generator those that it draws alone."""
    alone = np.random.default_rng(5)
    seeded(Holder(m=alone))
    generator, bits = np.random.default_rng(5), np.random.PCG64(5)
    seeded(Holder(a=bits, m=generator))
    assert np.random.Generator(bits).random(3).tolist() == generator.random(3).tolist() == alone.random(3).tolist()


# -- where they are found


class Box:
    rng = np.random.default_rng(11)

    def __init__(self, number: Any) -> None:
        self.number = number


class Plain:
    def __init__(self, number: Any) -> None:
        self.number = number


class Slotted:
    __slots__ = ("number", "unset")

    def __init__(self, number: Any) -> None:
        self.number = number


class Pair(NamedTuple):
    one: Any
    two: Any


class Layers(list[Any]):
    rng: Any


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


default = rng(1)


def everywhere() -> Holder:
    def with_default(x: Any = default) -> Any:
        return x

    deep = rng(2)
    keys: dict[Any, Any] = {"k": [rng(3)], ("t", 1): rng(4), 2.5: rng(5)}
    return Holder(
        boxes=[[Box(number) for number in range(3)] for _ in range(100)],
        many=[None] * 70 + [Holder(rng=deep)],
        near=Holder(far=Holder(further=Holder(rng=deep))),
        od=collections.OrderedDict((str(number), random.Random(number % 3)) for number in range(5)),
        dd=collections.defaultdict(list, keys),
        pairs=Pair(rng(6), [rng(6), rng(7)]),
        layers=Layers([rng(8), Holder(rng=rng(9))]),
        dq=collections.deque([rng(10)] * 3),
        part=functools.partial(with_default, key=np.random.RandomState(3)),
        bound=rng(12).normal,
        user=collections.UserDict(a=rng(13)),
    )


def test_paths_and_numbers_stay_the_same_from_release_to_release() -> None:
    """Also where what lies beyond the first items of a long container would be nearer."""
    found = seeded(everywhere())
    assert {path: each.number for path, each in found._found.items() if path.startswith("source")} == {
        "source.bound.__self__": 5353244507215276263,
        "source.dd[('t', 1)]": 6503620429826575157,
        "source.dd[?]": 1947478506539103353,
        "source.dq[0]": 313865755490920297,
        "source.layers[0]": 3423520741092495748,
        "source.od['0']": 11653703464397269497,
        "source.od['1']": 8943346656102225,
        "source.od['2']": 11596029741094845641,
        "source.od['3']": 11653703464397269497,
        "source.od['4']": 8943346656102225,
        "source.pairs[0]": 18139335956790564661,
        "source.user['a']": 18268210291068927916,
        "source.dd['k'][0]": 14682115102502344324,
        "source.layers[1].rng": 16983184011049677162,
        "source.pairs[1][0]": 18139335956790564661,
        "source.pairs[1][1]": 15196692507029263600,
        "source.part.keywords['key']": 12039901007651808994,
        "source.near.far.further.rng": 7906807533493119553,
        "source.boxes[0][0].__class__.rng": 11020656889604971018,
        "source.part.func.__defaults__[0][0]": 15359416059038710157,
    }


def last(item: Any, of: Any = 0, num: int = 1000) -> list[Any]:
    return [of] * num + [item]


class Iterated(dict[str, Any]):
    def items(self) -> Any:
        raise AssertionError("iterated")


class Lazy(Mapping[int, Any]):
    """A mapping that reads what it is asked for."""

    num_read = 0

    def __init__(self) -> None:
        self.rng = rng()

    def __len__(self) -> int:
        return 10**6

    def __iter__(self) -> Iterator[int]:
        return iter(range(10**6))

    def __getitem__(self, key: int) -> Any:
        self.num_read += 1
        return key


class WithProperty:
    @property
    def table(self) -> Any:
        raise AssertionError("run")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)

    def __iter__(self) -> Any:
        raise AssertionError("iterated")

    def __len__(self) -> int:
        raise AssertionError("asked")


def with_attribute(container: Any, generator: Any) -> Any:
    container.rng = generator
    return container


def as_objects(items: list[Any]) -> Any:
    array = np.empty(len(items), object)
    array[:] = items
    return array


FAR: dict[str, Callable[[Any], Any]] = {
    "[1000]": last,
    "[1000].rng": lambda it: last(Holder(rng=it), "text"),
    "[1000].two": lambda it: last(Holder(two=it), [1.0, 2.0]),
    "[1000][1]": lambda it: last([1, it], [1, 2]),
    "[70][800][90]": lambda it: last(last(last(it, num=90), num=800), num=70),
    "[5000].number": lambda it: [*(Plain(number) for number in range(5000)), Plain(it)],
    "[5001].number": lambda it: [*(Slotted(number) for number in range(5001)), Slotted(it)],
    "[999][0]": lambda it: [*(Pair(number, "x") for number in range(999)), Pair(it, "x")],
    "[200].one": lambda it: [*(Holder(two=number) for number in range(200)), Holder(one=it)],
    "['900']['rng']": lambda it: {**{str(number): {"x": 1} for number in range(900)}, "900": {"rng": it}},
    "['x'][300]": lambda it: collections.OrderedDict(a=[1] * 1000, x=last(it, num=300)),
    "[400] of a tuple": lambda it: tuple(last(it, num=400)),
    "[400] of a deque": lambda it: collections.deque(last(it, num=400)),
    "[400] of an object array": lambda it: as_objects(last(it, "text", num=400)),
    "[0][0] of object arrays": lambda it: [as_objects([it, [1]])],
    "[500]:value": lambda it: [*((lambda value=number: value) for number in range(500)), lambda value=it: value],
    "[500].keywords['x']": lambda it: [
        *(functools.partial(int, x=1) for _ in range(500)),
        functools.partial(int, x=it),
    ],
    "[100].__self__": lambda it: last(it.random, num=100),
    "[100].__self__.rng": lambda it: last(types.MethodType(repr, Holder(rng=it)), num=100),
    "in a cached function": lambda it: functools.wraps(print)(functools.cache(lambda value=it: value)),
    "in a ufunc": lambda it: np.frompyfunc(lambda x, value=it: x, 1, 1),
    "an attribute of a list": lambda it: with_attribute(Layers([1] * 1000), it),
    "an attribute of a list in a list": lambda it: [*([1] for _ in range(100)), with_attribute(Layers(), it)],
    "a dict with items of its own": lambda it: Iterated(a=it),
    "the 300th of a subclass": lambda it: Layers(last(it, num=300)),
    "an object that may not be asked": lambda it: last(with_attribute(WithProperty(), it)),
    "after 10,000 objects": lambda it: [[Holder(x=Holder()) for _ in range(100)] for _ in range(100)] + [it],
}


@pytest.mark.parametrize("where", FAR)
def test_found_wherever_it_lies(where: str) -> None:
    generator = rng(5)
    source = Holder(data=FAR[where](generator), near=rng(6))
    found = Generators(lambda: [("source", source)])
    for epoch in range(3):  # also by looks that know what the first has found
        found.begin(epoch)
        assert [found._found[path].generator is generator for path in paths(found)] == [False, True]
    if where.startswith("[") and " " not in where:
        assert paths(found)[1].replace(".__defaults__[0][0]", ":value") == f"source.data{where}"


asked: list[str] = []  # the methods that were called of the containers of ``telling``


def telling(base: type) -> Any:
    """A subclass of a container whose methods note that they were called."""

    def noted(name: str) -> Any:
        def method(self: Any, *arguments: Any) -> Any:
            asked.append(f"{base.__name__}.{name}")
            return getattr(base, name)(self, *arguments)

        return method

    names = "__iter__", "__getitem__", "__len__", "__contains__", "__reversed__", "items", "keys", "values", "get"
    return type(f"Telling{base.__name__}", (base,), {name: noted(name) for name in names if hasattr(base, name)})


def user_dict(it: Any) -> Any:
    made = telling(collections.UserDict)()
    made.data["a"] = it
    return made


STORES: dict[str, Callable[[Any], Any]] = {
    "a mapping": lambda it: with_attribute(Lazy(), it),
    "a dict": lambda it: telling(dict)(a=it),
    "an ordered dict": lambda it: telling(collections.OrderedDict)(a=it),
    "a default dict": lambda it: telling(collections.defaultdict)(list, a=it),
    "a dict of the user's": user_dict,
    "a list": lambda it: telling(list)([it]),
    "a tuple": lambda it: telling(tuple)([it]),
    "a deque": lambda it: telling(collections.deque)([it]),
    "a chain": lambda it: collections.ChainMap(telling(dict)(a=it), telling(collections.OrderedDict)(b=1)),
    "a view of a dict": lambda it: types.MappingProxyType(telling(dict)(a=it)),
    "a chain of stores": lambda it: with_attribute(collections.ChainMap({}, Lazy()), it),
    "a shelf": lambda it: with_attribute(shelve.Shelf(telling(dict)(a=pickle.dumps(1))), it),
    "a long dict": lambda it: telling(dict)({**dict.fromkeys(range(1000), 0), "a": it}),
    "a long list": lambda it: telling(list)(last(it)),
    "in a list": lambda it: last(telling(dict)(a=it)),
    "an attribute": lambda it: with_attribute(telling(dict)(a=1), it),
}


@pytest.mark.parametrize("kind", STORES)
def test_stores_are_not_read(kind: str) -> None:
    """What would load what it is asked for is not asked, by no look; its contents are seen all the same."""
    generator = rng(5)
    source = Holder(near=rng(6), data=STORES[kind](generator))
    found = Generators(lambda: [("source", source)])
    asked.clear()
    for epoch in range(2):
        found.begin(epoch)
        setattr(source, f"more_{epoch}", Holder(rng=rng(epoch)))
        assert found.has_grown()
        assert any(each.generator is generator for each in found._found.values())
    assert not asked
    stores = [each for each in [source.data, *getattr(source.data, "maps", [])] if isinstance(each, Lazy)]
    assert not any(store.num_read for store in stores)


def test_cycles_and_shared_parts() -> None:
    itself: list[Any] = [1] * 1000
    itself.append(itself)
    shared = [[1] * 100] * 1000
    wide = [[shared] * 1000] * 1000
    chain: Any = None
    for _ in range(200):
        chain = [chain]
    ring = [Holder() for _ in range(1000)]
    for one, two in zip(ring, [*ring[1:], ring[0]], strict=True):
        one.__dict__["next"] = two
    assert paths(seeded(Holder(itself=itself, wide=wide, chain=chain, ring=ring, z=rng()))) == ["source.z"]


NUM = 4_000
DATA: dict[str, Callable[[], Any]] = {
    "numbers": lambda: list(range(NUM)),
    "boxes": lambda: [[[1.0, 2.0, 3.0, 4.0] for _ in range(3)] for _ in range(NUM)],
    "dicts": lambda: [{"path": "x", "boxes": [1.0, 2.0]} for _ in range(NUM)],
    "by name": lambda: {str(number): [number] for number in range(NUM)},
    "objects": lambda: [Box(number) for number in range(NUM)],
    "slots": lambda: [Slotted(number) for number in range(NUM)],
    "tuples": lambda: [Pair(number, "x") for number in range(NUM)],
    "with one transform": lambda: [Box(shared_transform) for _ in range(NUM)],
    "functions": lambda: [functools.partial(int, str(number)) for number in range(NUM)],
    "lambdas": lambda: [lambda number=number: number for number in range(NUM)],
    "an object array": lambda: as_objects([str(number) for number in range(NUM)]),
    "arrays": lambda: [np.zeros(1) for _ in range(NUM)],
    "data but for one": lambda: [*([1.0, [2.0]] for _ in range(NUM)), Holder(rng=rng())],
    "parts": lambda: {"train": [[1.0] for _ in range(NUM)], "test": [[1.0] for _ in range(NUM)]},
}
shared_transform = Holder(rng=rng(12), name="x")


@pytest.mark.parametrize("kind", DATA)
def test_data_are_looked_at_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later looks go through samples, but see what is new."""
    monkeypatch.setattr(data_only, "_NUM_AGAIN", 500)
    monkeypatch.setattr(data_only, "_NUM_TYPES_AGAIN", 2_000)
    monkeypatch.setattr(data_only, "_NUM_SAMPLED", 500)
    num_walked, num_parts = 0, 0
    look_into, get_referents = walk._parts, gc.get_referents

    def counted(path: str, here: Any) -> Any:
        nonlocal num_walked
        num_walked += 1
        return look_into(path, here)

    def counted_referents(*objects: Any) -> Any:
        nonlocal num_parts
        parts = get_referents(*objects)
        num_parts += len(parts)
        return parts

    monkeypatch.setattr(walk, "_parts", counted)
    monkeypatch.setattr(data_only, "gc", types.SimpleNamespace(get_referents=counted_referents))
    data: Any = DATA[kind]()
    source = Holder(data=data, rng=rng())
    found = Generators(lambda: [("source", source)])
    found.begin(0)
    assert num_walked < NUM / 2
    before, num_first, num_parts = paths(found), num_parts, 0
    found.begin(1)
    assert paths(found) == before
    assert num_parts <= max(num_first / 2, 1_000)  # 0.38 on Python 3.13, 0.3 before
    if isinstance(data, list):
        data[3] = rng(5)
        found.begin(2)
        assert len(paths(found)) == len(before) + 1
        source.__dict__["data"] = data = [*data[:1000], [rng(6)], *data[1001:]]
        found.begin(3)
        assert len(paths(found)) == len(before) + 2
        data.append(Holder(rng=rng(7)))
        found.begin(4)
        assert len(paths(found)) == len(before) + 3


def test_a_search_that_stops_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(walk, "MAX_OBJECTS", 500)
    monkeypatch.setattr(generators, "MAX_OBJECTS", 500)
    generators._warn_of.cache_clear()
    source = Holder(data=[Holder(rng=rng(number)) for number in range(1000)], near=rng(1))
    found = Generators(lambda: [("source", source)])
    for epoch in range(2):
        found.begin(epoch)
    assert "source.near" in paths(found)
    assert len(caplog.records) == 1
    assert "stopped at source.data[" in caplog.text
    assert "500 objects" in caplog.text
    assert "current_rng()" in caplog.text


# -- which are pairs


def drawn_once(generator: Any) -> Any:
    generator.random()
    return generator


def loaded(generator: Any, state_of: Any) -> Any:
    generator.bit_generator.state = state_of.bit_generator.state
    return generator


def advanced(generator: Any, num: int) -> Any:
    generator.bit_generator.advance(num)
    return generator


def of(bits: Any, seed: Any = 5) -> Any:
    return np.random.Generator(bits(seed))


@pytest.mark.parametrize(
    ("one", "two", "is_pair"),
    [
        *((lambda bits=bits: of(bits), lambda bits=bits: drawn_once(of(bits)), True) for bits in BITS),
        *((lambda bits=bits: of(bits, [1, 2]), lambda bits=bits: of(bits, [1, 3]), False) for bits in BITS),
        (lambda: rng(5), lambda: pickle.loads(pickle.dumps(rng(5))), True),
        (lambda: rng(5), lambda: loaded(rng(6), rng(5)), True),
        (lambda: rng(5), lambda: loaded(rng(5), rng(6)), False),
        (lambda: of(np.random.Philox), lambda: loaded(of(np.random.Philox), of(np.random.Philox, 6)), False),
        (lambda: rng(5), lambda: rng(5).spawn(1)[0], False),
        *((lambda bits=bits: of(bits), lambda bits=bits: advanced(of(bits), 2**64), False) for bits in BITS[:3]),
        *((lambda bits=bits: of(bits), lambda bits=bits: advanced(of(bits), 10**9), True) for bits in BITS[:3]),
        (lambda: rng(5).spawn(1)[0], lambda: drawn_once(rng(5).spawn(1)[0]), True),
        (lambda: rng(5), lambda: np.random.Generator(np.random.PCG64(5).jumped()), False),
        (np.random.default_rng, np.random.default_rng, False),
        (lambda: of(np.random.PCG64), lambda: of(np.random.MT19937), False),
        (lambda: np.random.RandomState(5), lambda: np.random.RandomState(5), True),
        (lambda: np.random.RandomState(5), lambda: np.random.RandomState(6), False),
        (lambda: random.Random(5), lambda: random.Random(5), True),
        (lambda: random.Random(5), lambda: random.Random(6), False),
    ],
)
def test_what_is_a_pair(one: Any, two: Any, is_pair: bool) -> None:
    source = Holder(one=one(), two=two())
    found = seeded(source)
    first, second = (found._found[path] for path in paths(found))
    assert (first.number == second.number) is is_pair
    assert (source.one.random() == source.two.random()) is is_pair


def test_pairs_are_told_at_the_first_look() -> None:
    """Later ones tell only what is new; so do those in another process, which is told of them."""
    source = Holder(one=random.Random(5), two=random.Random(5), three=random.Random(6))
    task = Task(source, (), 1)
    task.history = History()
    task.generators().look_first()
    source.one.random()
    one, three, two = here = numbers_in(task)
    assert one == two != three
    assert numbers_in(pickle.loads(pickle.dumps(task))) == here
    source.one, source.three = random.Random(7), random.Random(7)
    one, three, two = here = numbers_in(task)
    assert one == three != two
    assert numbers_in(pickle.loads(pickle.dumps(task))) == here


def numbers_in(task: Task) -> list[int]:
    found = task.generators()
    found.begin(0)
    return [each.number for path, each in sorted(found._found.items()) if path.startswith("source")]


def test_a_task_that_is_as_before_is_pickled_as_before() -> None:
    task = Task(Holder(one=rng(5), two=[rng(5), random.Random(3)]), (), 1)
    task.history = History()
    assert pickle.dumps(task) == pickle.dumps(task)
