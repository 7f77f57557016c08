"""Makes a function's error for an unknown keyword argument say what to write instead."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: {name in other libraries: our names for it}. An error shows the first of our names that the function has.
_NAMES_HERE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("num_workers", "n_workers", "workers", "max_workers", "num_processes", "n_jobs", "num_parallel_calls"),
        ("nb_workers",),
    ),
    **dict.fromkeys(("prefetch_factor", "buffer_size", "queue_size", "max_size"), ("max_queue_size",)),
    **dict.fromkeys(("timeout", "timeout_s"), ("job_timeout",)),
    **dict.fromkeys(("generator", "random_state", "random_seed", "rng"), ("seed",)),
    **dict.fromkeys(("multiprocessing_context", "use_multiprocessing", "backend", "start_method"), ("executor",)),
    **dict.fromkeys(("collate", "collate_function", "collator", "batch_fn"), ("collate_fn",)),
    **dict.fromkeys(
        ("drop_last", "drop_remainder", "discard", "discard_batch_not_full"), ("drop_last", "discard_batch_not_full")
    ),
    **dict.fromkeys(("function", "func", "fn", "map_func", "map_fn"), ("function_to_run",)),
    **dict.fromkeys(("dataset", "data", "source"), ("sequence", "source_split", "arrays")),
    **dict.fromkeys(("num_replicas", "world_size", "num_shards", "num_ranks"), ("world",)),
    **dict.fromkeys(("index", "shard_index", "shard_id"), ("rank",)),
    **dict.fromkeys(("ordered", "deterministic", "keep_order"), ("in_order",)),
    **dict.fromkeys(("bs", "size", "batchsize"), ("batch_size",)),
}

#: {name: what to do instead}, if the function has no argument for it.
_ADVICE = {
    "sampler": "write .reorder(sampler) before it, or prefetch(..., sampler=...)",
    "batch_sampler": "write .batch_by(batch_sampler) before it, or prefetch(..., batch_sampler=...)",
    "weights": "write .weighted(weights) before it, or prefetch(..., weights=...)",
    "pin_memory": "write output=..., and call .to_device(device) on the result, which pins memory as needed",
    "persistent_workers": "leave it out: workers stay until close(), or until the with block ends",
    "device": "call .to_device(device) on the result",
    "transform": "write .map(function), or call it in __getitem__",
    "epochs": "leave it out: each loop over the result is one epoch",
    "batch_size": "write .batch(batch_size), or prefetch(..., batch_size=...)",
    "shuffle": "write .shuffle() before it",
    "seed": "the order is drawn from the seed of the sequence: give seed=... to the sequence, or to prefetch(...)",
    "max_queue_size": "leave it out",
    "nb_workers": "give it to .map(...) or .prefetch(...)",
    "collate_fn": "write .collate(function) after it, or prefetch(..., batch_size=..., collate_fn=...)",
}
_ADVICE |= {"pin_memory_device": _ADVICE["pin_memory"], "num_epochs": _ADVICE["epochs"]}
_ADVICE |= {"map": _ADVICE["transform"], "transforms": _ADVICE["transform"]}


def explains_arguments(function: _Function, options: type | None = None) -> _Function:
    """Return a wrapper of ``function`` whose TypeError for an unknown keyword argument says what to write instead.

    Args:
        options: the TypedDict of the function's ``**options``; None if it has none, or another function checks them.
    """
    parameters = inspect.signature(function).parameters.values()
    passes_on = options is None and any(each.kind is each.VAR_KEYWORD for each in parameters)
    known = [each.name for each in parameters if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]
    known += [] if options is None else [each for each in options.__annotations__ if each not in known]
    name = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]

    @functools.wraps(function)
    def checked(*arguments: Any, **options: Any) -> Any:
        for option in options:
            if option not in known and not (passes_on and set(known).isdisjoint(_NAMES_HERE.get(option, ()))):
                raise TypeError(f"{name}() has no argument {option!r}: {_instead(option, known)}")
        return function(*arguments, **options)

    return checked  # type: ignore[return-value]


def explains_options(options: type) -> Callable[[_Function], _Function]:
    """Return a decorator that makes a function's errors for unknown ``**options`` say what to write instead.

    ``options`` is the TypedDict of these keyword arguments.
    """
    return functools.partial(explains_arguments, options=options)


def _instead(option: str, known: list[str]) -> str:
    """Return the advice in an error: what to write instead of ``option`` for a function with arguments ``known``."""
    known = [name for name in known if name != "self"]
    names = [name for name in _NAMES_HERE.get(option, ()) if name in known]
    names = names or ([] if option in _ADVICE else difflib.get_close_matches(option, known, 1, 0.7))
    if names:
        return f"write {names[0]}=..."
    here = next((name for name in _NAMES_HERE.get(option, ()) if name in _ADVICE), option)
    return _ADVICE.get(here) or (f"it takes {', '.join(known)}" if known else "it takes none")
