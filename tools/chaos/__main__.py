"""Puts the service to the proof: six processes on one file, left alone, then killed and so on.

Usage: .venv/bin/python -m tools.chaos [SECONDS [SCENARIO...]]

Of each scenario (quiet, kill, stop, terminate) comes a table and a verdict. Exit code 1: one
failed, and its records and logs are kept.
"""

import os
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


def main(seconds: float, names: Sequence[str]) -> int:
    """Run the scenarios, all unless some are named, and return the exit code."""
    failed = 0
    for scenario in SCENARIOS:
        if names and scenario.name not in names:
            continue
        print(f"\n== {scenario.name}: {seconds:g} s, {sum(GROUPS)} processes", flush=True)
        folder = Path(tempfile.mkdtemp(prefix=f"chaos-{scenario.name}-"))
        evidence = scenario.run(folder, GROUPS, seconds)
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
    sys.exit(main(float((sys.argv[1:] or ["120"])[0]), sys.argv[2:]))
