"""Plays ``nb_workers="auto"`` on a simulated machine, against an oracle that knows the future, and prints a table."""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

from simulated import CASES, play  # type: ignore[import-not-found,unused-ignore]

_RUNS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=_RUNS, metavar="N", help=f"of each load ({_RUNS})")
    runs = parser.parse_args().runs
    print(f"{'load':<48} {'noise':>5} {'regret':>7} {'recovered':>9} {'changes':>7}")
    regrets, recoveries = [], []
    for case in CASES:
        found = [play(case.load, noise=case.noise, changes=case.changes, seed=seed) for seed in range(runs)]
        regrets.append(statistics.median(each.regret for each in found))
        recoveries.append(statistics.median(each.recovery for each in found))
        changes = statistics.median(len(each.chosen) - 1 for each in found)
        recovered = f"{recoveries[-1]:.1f} s" if case.changes else ""
        print(f"{case.name:<48} {case.noise:>5.0%} {regrets[-1]:>7.1%} {recovered:>9} {changes:>7.0f}")
    print(
        f"{len(CASES)} loads, medians of {runs} runs: mean regret {statistics.mean(regrets):.1%}, at most "
        f"{max(regrets):.1%}; recovered within {max(recoveries):.1f} s"
    )


if __name__ == "__main__":
    main()
