"""Stress the engine for a long time: workers killed at random, ever new shapes, 1,000 epochs, 64 workers and more.

Every batch is compared with the serial run. Prints a table for README.rst; exits with 1 if anything was lost. All
randomness comes from the seed, which is printed first, and from the scheduling of the processes.

Takes about 45 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "tests" / "support")]

import stress  # noqa: E402
from benchmarks.report import rst_table  # noqa: E402

PATIENCE_S = 120.0  # only detects a hang

Load = tuple[str, Callable[[stress.Tally], stress.Tally]]  # its label in the table, and the function that runs it


def loads(options: argparse.Namespace) -> dict[str, Load]:
    """Return {name: load}, in the order in which they run."""
    seed, minutes, few = options.seed, options.minutes, options.many_batches
    return {
        "kills": (
            "kill -9 of random ones of 3 workers, at random moments",
            lambda tally: stress.kills(options.kills, seed, tally, minutes),
        ),
        "shapes": (
            "batches of ever new shapes, and kill -9 of one of 3 workers twice a second",
            lambda tally: stress.new_shapes(options.shapes, seed, tally, minutes),
        ),
        "epochs": (
            f"{options.epochs:,} epochs, every fifth left by break",
            lambda tally: stress.epochs(options.epochs, seed, tally),
        ),
        "keeping": (
            "batches kept, and dropped in random order",
            lambda tally: stress.keeping(options.keep, seed, tally),
        ),
        "many": (
            f"{options.workers} workers on {len(os.sched_getaffinity(0))} cores",
            lambda tally: stress.many_workers(options.workers, seed, tally, few),
        ),
        "tiny": (f"{options.tiny:,} tiny batches", lambda tally: stress.tiny(options.tiny, seed, tally)),
        "walk": (
            f"{options.steps:,} random steps: next, break, close, states, kills",
            lambda tally: stress.walk(options.steps, seed, tally),
        ),
        "model": (
            f"{options.examples:,} random pipelines and steps of their loops, compared with the model",
            lambda tally: stress.model(options.examples, seed, tally),
        ),
    }


def watch(tally: stress.Tally, is_over: threading.Event) -> None:
    """End the program and print all stacks if no batch comes within ``PATIENCE_S``."""
    before = -1
    while tally.delivered != before:
        before = tally.delivered
        if is_over.wait(PATIENCE_S):
            return
    print(f"HANGS: no batch for {PATIENCE_S:.0f} s", file=sys.stderr)
    faulthandler.dump_traceback(all_threads=True)
    os._exit(2)


def hold(run: Callable[[stress.Tally], stress.Tally]) -> tuple[stress.Tally, bool]:
    """Return (the tally of the load, True if nothing failed)."""
    tally, is_over = stress.Tally(), threading.Event()
    watcher = threading.Thread(target=watch, args=(tally, is_over))
    watcher.start()
    try:
        with stress.nothing_left():
            run(tally)
        return tally, True
    except Exception:
        traceback.print_exc()
        tally.note = "FAILED, see above"
        return tally, False
    finally:
        is_over.set()
        watcher.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=2000, metavar="N", help="of workers (2000)")
    parser.add_argument("--shapes", type=int, default=1_000_000, metavar="N", help="batches of new shapes (1000000)")
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M", help="then these two end anyway (10)")
    parser.add_argument("--epochs", type=int, default=1000, metavar="N", help="with flat memory (1000)")
    parser.add_argument("--keep", type=int, default=50_000, metavar="N", help="batches, most of them kept (50000)")
    parser.add_argument("--workers", type=int, default=64, metavar="N", help="at once (64)")
    parser.add_argument("--many-batches", type=int, default=300, metavar="N", help="of these in an epoch (300)")
    parser.add_argument("--tiny", type=int, default=1_000_000, metavar="N", help="batches of 24 bytes (1000000)")
    parser.add_argument("--steps", type=int, default=5000, metavar="N", help="random ones (5000)")
    parser.add_argument("--examples", type=int, default=5000, metavar="N", help="of the model (5000)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32), metavar="N")
    parser.add_argument("--only", nargs="+", metavar="LOAD", help="kills shapes epochs keeping many tiny walk model")
    options = parser.parse_args()
    all_loads = loads(options)
    if unknown := set(options.only or ()) - set(all_loads):
        parser.error(f"no load is called {sorted(unknown)}; there are {list(all_loads)}")
    print(f"--seed {options.seed}", flush=True)
    logging.getLogger("workers").setLevel(logging.CRITICAL)  # no lines for each killed worker and each skipped job
    rows, are_well = [["load held", "faults survived", "batches delivered", "batches lost", "and"]], True
    for name, (label, run) in all_loads.items():
        if options.only and name not in options.only:
            continue
        start = time.monotonic()
        tally, is_well = hold(run)
        are_well &= is_well
        rows.append([label, f"{tally.faults:,}", f"{tally.delivered:,}", f"{tally.lost:,}", tally.note])
        print(
            f"{name}: {'held' if is_well else 'FAILED'}, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True
        )
    print(rst_table((rows[0], rows[1:])))
    raise SystemExit(0 if are_well else 1)


if __name__ == "__main__":
    main()
