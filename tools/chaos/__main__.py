"""Puts the service to the proof: six processes on one file, left alone, then killed and so on.

Usage: .venv/bin/python -m tools.chaos [SECONDS [SCENARIO...]] [--seed N]

Of each scenario (quiet, kill, stop, terminate) comes a table and a verdict. Exit code 1: one
failed, and its records and logs are kept.

The seed is printed. The same one draws the same numbers again for whom something is done to; when
that happens, and who is there to be drawn from, is up to the machine.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.chaos.harness import LEASE_SECONDS, SCENARIOS
from tools.chaos.oracle import JOBS, judge
from tools.chaos.report import explanation, report

# Four uvicorn workers, and two more processes.
GROUPS = (4, 1, 1)

# Of a seed that nobody has given: short enough to be typed again.
SEED_MAX = 999_999


def read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Read `seconds`, `scenarios` and `seed`. Unless one is given, the seed is drawn."""
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(
        prog="python -m tools.chaos", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("seconds", type=float, nargs="?", default=120, help="of each, 120")
    parser.add_argument("scenarios", nargs="*", help=f"all, unless some are named: {names}")
    parser.add_argument("--seed", type=int, help="draws to whom something is done; it is printed")
    read = parser.parse_args(arguments)
    if unknown := [name for name in read.scenarios if name not in names]:
        parser.error(f"{unknown} is none of {names}")  # or nothing would run, and nothing fail
    if read.seed is None:
        read.seed = random.randint(0, SEED_MAX)
    return read


def main(seconds: float, names: Sequence[str], seed: int) -> int:
    """Run the scenarios, all unless some are named, and return the exit code."""
    failed = 0
    for scenario in SCENARIOS:
        if names and scenario.name not in names:
            continue
        head = f"{scenario.name}: {seconds:g} s, {sum(GROUPS)} processes, seed {seed}"
        print(f"\n== {head}", flush=True)
        folder = Path(tempfile.mkdtemp(prefix=f"chaos-{scenario.name}-"))
        evidence = scenario.run(folder, GROUPS, seconds, random.Random(seed))
        quiet = not scenario.signal
        verdict = judge(evidence, JOBS, processes=sum(GROUPS), lease=LEASE_SECONDS, quiet=quiet)
        print(report(scenario.name, verdict, load=os.getloadavg()[0], quiet=quiet), flush=True)
        if verdict.violations:
            failed += 1
            print(f"its records, database and logs: {folder}", flush=True)
        else:
            shutil.rmtree(folder)
    print(f"\n{explanation()}")
    return 1 if failed else 0


if __name__ == "__main__":
    given = read_arguments(sys.argv[1:])
    sys.exit(main(given.seconds, given.scenarios, given.seed))
