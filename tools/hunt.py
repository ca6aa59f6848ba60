"""Shows which mutants the simulation alone sees, and how many seeds that takes.

Usage: python -m tools.hunt [--seeds N] [NAME...]

Each of tools/mutants/*.patch is applied to a copy of the service, as `make mutants` does; then the
seeds 0, 1, 2 ... are run until one breaks a rule. No other test is run. Exit code 1: one was not
seen. What needs two transactions at the same time, or lies beyond scheduler and store, cannot be
seen there: those are named in UNSEEN, with the reason.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.mutants import AT_ONCE, PATCHES, SERVICE, Mutant, apply, copy, load

SEEDS = 500

SERIAL = "needs two transactions at the same time: a named test on real connections"
ELSEWHERE = "lies in what the simulation replaces, or beyond scheduler and store"

UNSEEN = {
    "claims-wait-for-each-other": SERIAL,
    "clock-before-the-lock": SERIAL,
    "deferred-begin": SERIAL,
    "end-without-a-lock": SERIAL,
    "fence-first": SERIAL,
    "new-row-overwritten": SERIAL,
    "unordered-locks": SERIAL,
    "clocks-compared": ELSEWHERE,
    "database-closed-before-the-jobs": ELSEWHERE,
    "scheduler-never-started": ELSEWHERE,
    "stopped-only-without-exception": ELSEWHERE,
    "timeout-on-the-real-clock": ELSEWHERE,
    "writes-pile-up": ELSEWHERE,
}

PROGRAM = """
import sys
from simulation.batch import counted
for seed in range(int(sys.argv[1])):
    verdict, _ = counted(seed)
    if verdict is not None:
        print(seed, verdict.violations[0].rule, sep="\t")
        break
"""


def main(arguments: Sequence[str]) -> int:
    """Hunt the named mutants, or all that can be seen."""
    parser = argparse.ArgumentParser(prog="python -m tools.hunt")
    parser.add_argument("names", nargs="*", help="all that can be seen, unless some are named")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"at most so many: {SEEDS}")
    given = parser.parse_args(arguments)
    mutants = [
        mutant for mutant in load(PATCHES, given.names) if given.names or mutant.name not in UNSEEN
    ]
    with tempfile.TemporaryDirectory(prefix="hunt-") as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        hunts = [pool.submit(hunt, Path(folder), mutant, given.seeds) for mutant in mutants]
        seen = [each.result() for each in hunts]
    print(f"{sum(seen)} of {len(seen)} seen by the simulation alone")
    for name, reason in sorted(UNSEEN.items()):
        if not given.names:
            print(f"not hunted: {name}: {reason}")
    return 0 if all(seen) else 1


def hunt(folder: Path, mutant: Mutant, seeds: int) -> bool:
    """Run seeds on a copy with the mistake, until one sees it, and tell."""
    service, began = folder / mutant.name, time.monotonic()
    copy(SERVICE, service)
    if complaint := apply(mutant.path, service):
        print(f"{mutant.name}: no longer applies: {complaint}", flush=True)
        return False
    path = os.pathsep.join([str(service), str(service / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(seeds)],
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    seconds = time.monotonic() - began
    if done.returncode or not done.stdout:
        how = done.stderr.strip().splitlines()[-1:] or [f"not in {seeds} seeds"]
        print(f"{mutant.name}: NOT SEEN: {how[0]} ({seconds:.0f} s)", flush=True)
        return False
    seed, rule = done.stdout.strip().split("\t")
    print(
        f"{mutant.name}: seed {seed}, {int(seed) + 1} seeds, {rule!r} ({seconds:.0f} s)", flush=True
    )
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
