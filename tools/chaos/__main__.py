"""Puts the service to the proof: six processes on one database, left alone, then killed and so on.

Usage: .venv/bin/python -m tools.chaos [MINUTES [SCENARIO...]] [--on DATABASE] [--seed N]

Half of the time is for SQLite, half for Postgres, and of each each scenario has the same part.
From each scenario comes a table and a verdict, from each database a sum. Exit code 1: something was
wrong, and its records and logs are kept. What this machine lacks for a part is said at the end.

The seed is printed. The same one draws the same numbers again for whom something is done to; when
that happens, and who is there to be drawn from, is up to the machine.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tools.chaos.faults import FAULTS
from tools.chaos.harness import LEASE_SECONDS
from tools.chaos.oracle import JOBS, Verdict, judge
from tools.chaos.report import explanation, report, total
from tools.chaos.scenarios import DATABASES, SCENARIOS, Scenario

# Four uvicorn workers, and two more processes.
GROUPS = (4, 1, 1)

# Of a seed that nobody has given: short enough to be typed again.
SEED_MAX = 999_999


def read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Read `minutes`, `scenarios`, `on` and `seed`. Unless one is given, the seed is drawn."""
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(
        prog="python -m tools.chaos", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("minutes", type=float, nargs="?", default=10, help="in all, 10")
    parser.add_argument("scenarios", nargs="*", help=f"all, unless some are named: {names}")
    parser.add_argument(
        "--on", choices=DATABASES, action="append", help="both, unless one is named"
    )
    parser.add_argument("--seed", type=int, help="draws to whom something is done; it is printed")
    read = parser.parse_args(arguments)
    if unknown := [name for name in read.scenarios if name not in names]:
        parser.error(f"{unknown} is none of {names}")  # or nothing would run, and nothing fail
    if read.seed is None:
        read.seed = random.randint(0, SEED_MAX)
    return read


def main(minutes: float, names: Sequence[str], databases: Sequence[str], seed: int) -> int:
    """Run the scenarios, all unless some are named, and return the exit code."""
    failed, totals = 0, []
    for database in databases:
        scenarios = [each for each in SCENARIOS if not names or each.name in names]
        scenarios = [each for each in scenarios if not each.faults or each.on(database)]
        verdicts = []
        for scenario in scenarios:
            seconds = 60 * minutes / len(databases) / len(scenarios)
            verdicts.append(run(scenario, database, seconds, seed))
        failed += any(verdict.violations for verdict in verdicts)
        totals.append(total(database, verdicts))
    print("", explanation(), "", *totals, *not_run(databases), sep="\n")
    return 1 if failed else 0


def run(scenario: Scenario, database: str, seconds: float, seed: int) -> Verdict:
    """Run one scenario, and tell what came of it."""
    name, quiet = f"{scenario.name} on {database}", not scenario.faults
    print(f"\n== {name}: {seconds:g} s, {sum(GROUPS)} processes, seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{scenario.name}-"))
    evidence = scenario.run(database, folder, GROUPS, seconds, random.Random(seed))
    verdict = judge(evidence, JOBS, processes=sum(GROUPS), lease=LEASE_SECONDS, quiet=quiet)
    load = os.getloadavg()[0]
    print(report(name, verdict, load=load, quiet=quiet, held_up=evidence.held_up), flush=True)
    if verdict.violations:
        (folder / "evidence.json").write_text(json.dumps(asdict(evidence), indent=1))
        print(f"its records and logs: {folder}", flush=True)
    else:
        shutil.rmtree(folder)
    return verdict


def not_run(databases: Sequence[str]) -> list[str]:
    """Tell what is left out on this machine, and why."""
    return [
        f"NOT RUN: {fault.name} on {database}: {lacking}"
        for fault in FAULTS
        for database in fault.databases
        if database in databases and (lacking := fault.lacks())
    ]


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or what it has started would go on
    given = read_arguments(sys.argv[1:])
    sys.exit(main(given.minutes, given.scenarios, given.on or DATABASES, given.seed))
