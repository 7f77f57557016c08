"""Which files a call enters on its way, and where it climbs: calls into a room that stands behind the caller's.

Run as a program it prints, as JSON, the walks of a loop, of ``model.fit`` and of building a chain. A climb is a call
against the order of imports that is not made through a protocol: through one of Python's own methods, a function that
was handed over, or a method that a class defines for those who ask below it (``PROTOCOLS``).
"""

from __future__ import annotations

import collections
import json
import os
import sys
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
from house import ROOMS

import workers
from workers.engine.executor import Executor

if TYPE_CHECKING:
    from typing_extensions import Self

ROOT = f"{Path(workers.__file__).parents[1]}{os.sep}"

#: {a class, or a part of its name: what is asked of it from below}.
PROTOCOLS = {
    "Executor": tuple(dir(Executor)),
    "Waker": ("wake",),
    "Live": ("_roots",),
    "Sequence": ("_plan", "_make_live", "_share", "_identity", "_has_hooks"),
}
#: Files and functions through which a function that was handed over is called.
_PASSED_THROUGH = f"{ROOT}workers{os.sep}arguments.py"
_CALLERS = ("with_clock", "read_alone")

Call = tuple[str, str, str, str]  # (file and function of the caller, of the callee)


class Walk:
    """The files and calls between files, from when it is entered until it is left."""

    current: Walk | None = None

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.calls: collections.Counter[Call] = collections.Counter()

    def __enter__(self) -> Self:
        Walk.current = self
        return self

    def __exit__(self, *_: object) -> None:
        Walk.current = None

    def climbs(self, rooms: list[str]) -> list[str]:
        """Those calls that lead to a room behind the caller's in ``rooms``, each once."""
        found = []
        for caller, calling, callee, called in self.calls:
            here, there = _room(caller), _room(callee)
            if here in rooms and there in rooms and rooms.index(there) > rooms.index(here):
                found.append(f"{caller} {calling} -> {callee} {called}")
        return sorted(found)


def _room(file: str) -> str:
    parts = file.split(os.sep)
    return parts[0] if parts[0] == "sampler" or len(parts) == 1 else parts[1].removesuffix(".py")


def _is_ours(code: CodeType) -> bool:
    return code.co_filename.startswith(ROOT + "workers") or code.co_filename.startswith(ROOT + "sampler")


def _is_caller(code: CodeType) -> bool:
    return _is_ours(code) and code.co_filename != _PASSED_THROUGH and code.co_name not in _CALLERS


def _is_by_protocol(frame: FrameType) -> bool:
    code = frame.f_code
    name = code.co_name
    if frame.f_back is not None and frame.f_back.f_code.co_name in _CALLERS:
        return True
    if name.startswith(("__", "<")) or "<locals>" in getattr(code, "co_qualname", ""):
        return True
    first = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
    if any(getattr(type(first).__dict__.get(special), "__code__", None) is code for special in ("__repr__", "__dir__")):
        return True
    if any(getattr(vars(each).get("__repr__"), "__code__", None) is code for each in type(first).__mro__):
        return True
    classes = [each.__name__ for each in type(first).__mro__]
    return any(name in names and any(part in each for each in classes) for part, names in PROTOCOLS.items())


def hook(frame: FrameType, event: str, _: Any) -> None:
    """For ``sys.setprofile``: note a call between files of ours."""
    walk = Walk.current
    if event != "call" or walk is None or not _is_ours(frame.f_code):
        return
    file = frame.f_code.co_filename[len(ROOT) :]
    walk.files.add(file)
    back = frame.f_back
    while back is not None and not _is_caller(back.f_code):
        back = back.f_back
    if back is not None and (caller := back.f_code.co_filename[len(ROOT) :]) != file and not _is_by_protocol(frame):
        walk.calls[caller, back.f_code.co_name, file, frame.f_code.co_name] += 1


def watch() -> None:
    """Note the calls of this thread, and of all that begin from now on."""
    threading.setprofile(hook)
    sys.setprofile(hook)


class Numbers(workers.Sequence[Any]):
    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> Any:
        return np.full(8, index)


class Watched(Numbers):
    """Tells the files that its worker has entered since the tenth batch."""

    def __getitem__(self, index: int) -> Any:
        if index == 10:
            Walk.current = Walk()
        return sorted(Walk.current.files) if index == 150 and Walk.current else super().__getitem__(index)


class Pairs(workers.Sequence[Any]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        return np.full((8, 2), index, np.float32), np.zeros((8, 1), np.float32)


def _fit(keras: Any) -> Walk:
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(Pairs(seed=2), verbose=0)
    with Walk() as walk:
        model.fit(Pairs(seed=1), verbose=0)
    return walk


def main() -> None:
    import keras  # now: its import would take three times as long

    watch()
    found: dict[str, Walk] = {}
    with Numbers(seed=1).prefetch(2) as front:
        list(front)
        with Walk() as found["iter"]:
            loop = iter(front)
        for _ in range(20):
            next(loop)
        with Walk() as found["further batches"]:
            for _ in range(100):
                next(loop)
    with Walk() as found["chain"]:
        arrays = workers.SequenceArray({"x": np.arange(100)}, seed=1)
        chain = arrays.map(_same).batch(4).shuffle().prefetch(2)
    chain.close()
    with Numbers(seed=1).prefetch(0) as front:
        next(iter(front))
        with Walk() as found["state"]:
            state = front.state_dict()
            front.load_state_dict(state)
    with Watched(seed=1).prefetch(1, worker_init_fn=_watch_worker) as front:
        in_worker = next(batch for batch in front if isinstance(batch, list))
    found["fit"] = _fit(keras)
    told: dict[str, Any] = {
        name: {"files": len(walk.files), "climbs": walk.climbs(ROOMS)} for name, walk in found.items()
    }
    told["in a worker"] = {"files": len(in_worker), "climbs": []}
    print(json.dumps(told))


def _same(batch: Any) -> Any:
    return batch


def _watch_worker(_: int) -> None:
    watch()


if __name__ == "__main__":
    main()
