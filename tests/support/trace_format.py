"""A strict reader of Chrome trace events: what the format asks for, and nothing that it does not know.

Source: Trace Event Format, ``docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU``.
"""

from __future__ import annotations

from typing import Any

Event = dict[str, Any]

_NUMBER = (int, float)
_KEYS: dict[str, dict[str, Any]] = {
    "M": {"name": str, "pid": int, "tid": int, "args": dict},
    "X": {"name": str, "pid": int, "tid": int, "ts": _NUMBER, "dur": _NUMBER, "args": dict},
    "C": {"name": str, "pid": int, "ts": _NUMBER, "args": dict},
    "i": {"name": str, "pid": int, "tid": int, "ts": _NUMBER, "s": str, "args": dict},
}
_NAMES = {"process_name": ("name", str), "thread_name": ("name", str), "thread_sort_index": ("sort_index", int)}
_NS = 0.001  # microseconds: times are whole nanoseconds


def check_trace(whole: Any) -> list[Event]:
    """The events of a trace in the object form, each of which is as the format has it."""
    assert set(whole) == {"traceEvents", "displayTimeUnit", "otherData"}
    assert whole["displayTimeUnit"] in ("ms", "ns")
    events: list[Event] = whole["traceEvents"]
    for event in events:
        _check_event(event)
    named = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert len(set(named.values())) == len(named), "two lanes have one name"
    assert {event["tid"] for event in events if event["ph"] in "Xi"} <= set(named), "a lane has no name"
    for tid in named:
        _check_nesting([event for event in events if event["ph"] == "X" and event["tid"] == tid])
    return events


def lane(events: list[Event], name: str) -> list[Event]:
    """The events, but for its name, of the lane that is called so, in the order of their times."""
    [tid] = [event["tid"] for event in events if event["name"] == "thread_name" and event["args"]["name"] == name]
    return sorted((event for event in events if event["ph"] in "Xi" and event["tid"] == tid), key=lambda e: e["ts"])


def _check_event(event: Event) -> None:
    keys = _KEYS[event["ph"]]
    assert set(event) == {"ph", *keys}, event
    for key, kind in keys.items():
        assert isinstance(event[key], kind), event
        assert not isinstance(event[key], bool), event
    assert min(event.get("ts", 0), event.get("dur", 0)) >= 0, event
    if event["ph"] == "M":
        key, kind = _NAMES[event["name"]]
        assert {name: type(value) for name, value in event["args"].items()} == {key: kind}, event
    if event["ph"] == "C":
        assert {type(value) for value in event["args"].values()} <= {*_NUMBER}, event
    if event["ph"] == "i":
        assert event["s"] in ("g", "p", "t"), event


def _check_nesting(events: list[Event]) -> None:
    """Of two events of a lane, one is within the other, or behind it."""
    around: list[float] = []  # ends of those that have begun, the innermost last
    for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
        while around and around[-1] <= event["ts"] + _NS / 2:
            around.pop()
        end = event["ts"] + event["dur"]
        assert not around or end <= around[-1] + _NS / 2, event
        around.append(end)
