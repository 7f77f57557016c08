"""Defines the report of ``workers.check``: its findings, as plain sentences."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from typing import Literal

Level = Literal["error", "warning", "fact"]

_WIDTH = 100  # characters in a line
_TITLES: dict[Level, str] = {"error": "Errors", "warning": "Warnings", "fact": "Facts"}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One finding of ``workers.check``.

    Attributes:
        kind: what it is about. Errors: "cannot be sent", "cannot start", "fails", "not seeded", "differs", "writes into
            data". Warnings and facts: "view", "shapes", "time", "memory", "opens", "workers", "first batch".
        level: "error" for a fault, "warning" for what may be one, or "fact".
        text: what was found, and where.
        instead: what to write instead; "" if nothing needs to change.
    """

    kind: str
    level: Level
    text: str
    instead: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" + (f" {self.instead}" if self.instead else "")


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """The report of :func:`workers.check`. ``str(report)`` is the text that was printed.

    Attributes:
        source: the name of the source's class.
        nb_workers: the number of workers that have computed the batches.
        num_batches: the number of batches that were compared.
        findings: the findings, the worst first.
    """

    source: str
    nb_workers: int
    num_batches: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """True if no finding is an error."""
        return not any(each.level == "error" for each in self.findings)

    def of_kind(self, kind: str) -> list[Finding]:
        """Return the findings of ``kind``, such as ``"not seeded"``."""
        return [each for each in self.findings if each.kind == kind]

    def __str__(self) -> str:
        num_errors = sum(each.level == "error" for each in self.findings)
        verdict = "ok" if self.ok else "1 error" if num_errors == 1 else f"{num_errors} errors"
        lines = [f"{self.source}: {verdict}"]
        for level, title in _TITLES.items():
            found = [each for each in self.findings if each.level == level]
            lines += ["", title] if found else []
            for each in found:
                lines += _wrapped(str(each))
        return "\n".join(lines)


def _wrapped(text: str) -> list[str]:
    """Return ``text`` as an item of a list, wrapped into lines that do not separate a number from its unit."""
    whole = re.sub(r"(?<=\d) (?=[a-zA-Z%]+\b)", "\xa0", " ".join(text.split()))
    lines = textwrap.wrap(
        whole, _WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return [line.replace("\xa0", " ") for line in lines]
