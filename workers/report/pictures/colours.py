"""Chooses the colours of a report's pictures: one for each stage of a job, and for the loop's waits and steps."""

from __future__ import annotations

from collections.abc import Iterable

from workers.report.timeline import STAGES

# Colours of Okabe and Ito, distinct for the colour-blind (jfly.uni-koeln.de/color); then some of Paul Tol's.
_OF_STAGES = ("#56b4e9", "#0072b2", "#e69f00", "#009e73", "#cc79a7")
_OF_OTHERS = ("#f0e442", "#882255", "#999933", "#44aa99", "#661100")

OTHER = "other"  # time of a job in no stage
WAITING, WORKING = "waiting for a batch", "working with it"
_PLAIN = {OTHER: "#999999", WAITING: "#d55e00", WORKING: "#dddddd"}


def colours_of(kinds: Iterable[str]) -> dict[str, str]:
    """Return {kind: colour} of ``kinds`` (stages of jobs, waits, steps), in the order of the legend."""
    found = dict.fromkeys(kinds)
    others = [kind for kind in found if kind not in STAGES and kind not in _PLAIN]
    colours = dict(zip(STAGES, _OF_STAGES, strict=True))
    colours |= {kind: _OF_OTHERS[at % len(_OF_OTHERS)] for at, kind in enumerate(others)}
    return {kind: colour for kind, colour in {**colours, **_PLAIN}.items() if kind in found}
