"""The command line of every benchmark: runs the measurements that it asks for, and writes the results."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from benchmarks.core import Settings, Suite, answer, run_rounds
from benchmarks.report import chart, environment, markdown_table, rst_table, sentence, tables


def _names(known: Iterable[str]) -> Callable[[str], list[str]]:
    known = list(dict.fromkeys(known))

    def parse(text: str) -> list[str]:
        unknown = [name for name in text.split(",") if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"no such name: {', '.join(unknown)}; there are {', '.join(known)}")
        return text.split(",")

    return parse


def parser_of(suite: Suite, description: str | None, seconds: float, deadline_s: float) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    ways = [key for job in suite.jobs.values() for key in job.ways]
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="how often all is measured (5)")
    parser.add_argument("--seconds", type=float, default=seconds, metavar="S", help=f"of each timed loop ({seconds:g})")
    parser.add_argument("--quick", action="store_true", help="one round of 0.5 s: shows that it runs, not how fast")
    parser.add_argument(
        "--deadline", type=float, default=deadline_s, metavar="S", help=f"of each measurement ({deadline_s:g})"
    )
    parser.add_argument("--only", type=_names(suite.jobs), default=list(suite.jobs), metavar="JOB,...")
    parser.add_argument("--loaders", dest="ways", type=_names(ways), default=ways, metavar="NAME,...")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--rst", type=Path, metavar="FILE", help="the same tables for README.rst")
    if suite.chart:
        parser.add_argument("--png", type=Path, metavar="FILE", help="a picture of them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every single measurement")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


def main(suite: Suite, parser: argparse.ArgumentParser, given: Iterable[str] = ()) -> None:
    """Measure what the command line asks for. ``given``: the names of options that only this suite has."""
    options = parser.parse_args()
    if options.child:
        answer(suite, options.child)
        return
    if options.quick:
        options.rounds, options.seconds = 1, 0.5
    with tempfile.TemporaryDirectory() as folder:
        suite.prepare(folder)
        own = {name: getattr(options, name) for name in given} | {"folder": folder}
        settings = Settings(options.workers, options.seconds, own)
        facts = environment(settings, options.rounds)
        records = run_rounds(suite, options, settings)
    found = tables(suite, facts, records)
    text = "\n\n".join([sentence(facts), *map(markdown_table, found)]) + "\n"
    print(text)
    if options.markdown:
        options.markdown.write_text(text)
    if options.rst:
        options.rst.write_text("\n\n".join([sentence(facts), *map(rst_table, found)]) + "\n")
    if suite.draw is not None and options.png:
        suite.draw(facts, records, options.png)
    elif suite.chart and options.png:
        chart(suite, facts, records, options.png)
    if options.json:
        options.json.write_text(json.dumps({"environment": facts, "records": [asdict(r) for r in records]}, indent=1))
