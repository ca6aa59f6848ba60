"""Proves that the service's tests notice mistakes, by making thousands of them, one after another.

Usage: python -m tools.mutation [--changed REF] [--minutes N] [--seconds N] [--seed N] [FILE...]

1. Make the mutants of the engine's files: mutmut's, and each statement deleted.
2. Run the tests once, in two copies of the service, to learn which of them run which lines. They
   must pass.
3. Make each mutant in a copy, and run the tests that run its lines until one fails: those first
   that have killed others of the function, those that are named after the file, and short ones;
   with --seconds, no more than take so long in all. An explained one gets a few: it should survive.

A mutant is killed by a failing test, or by a hang. A survivor needs a test, or its explanation in
explained.txt. With --changed only files are tried that differ from that commit. With --minutes it
ends in time: the order is by chance, the same for the same seed, and what was left out is said.

Exit code 0: all are killed or explained. 1: one is not, or an explanation is no longer true.
2: nothing was tried.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from pathlib import Path

from tools.mutants import AT_ONCE, SERVICE, Refused, git
from tools.mutation import explained
from tools.mutation.mutant import NOT_MUTATED, Mutant, mutants_of
from tools.mutation.reach import Reach
from tools.mutation.report import Findings
from tools.mutation.trial import LEFT_OUT, SURVIVED, Worker

FILES = ("app/cron/*.py", "app/jobs/*.py", "app/db.py", "app/main.py")
TESTS = (
    "tests/fundamentals",
    "tests/jobs",
    "tests/cron",
    "tests/service",
    # They take seconds, and see little that others do not.
    "--ignore-glob=*test_processes.py",
    "--ignore-glob=*test_fault_processes.py",
    "--ignore-glob=*test_platforms.py",
)

# Of tests for an explained mutant, as they took in the survey. Any other gets all that reach it:
# for a survivor in the core that takes minutes, but there should be none.
EXPLAINED_SECONDS = 4.0

PROGRESS_SECONDS = 30.0
SEED_MAX = 999_999


@dataclass(frozen=True)
class Subject:
    """What is to be proven, and by what: the service and, in tests of this tool, another."""

    service: Path = SERVICE
    files: tuple[str, ...] = FILES
    tests: tuple[str, ...] = TESTS
    explained: Path = explained.EXPLAINED


def main(arguments: Sequence[str], subject: Subject | None = None) -> int:
    """Try the mutants that are asked for, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutation")
    parser.add_argument("files", nargs="*", help="all of the engine, unless some are named")
    parser.add_argument("--changed", metavar="REF", help="only files that differ from this commit")
    parser.add_argument("--minutes", type=float, default=inf, help="at most so long")
    parser.add_argument("--seconds", type=float, default=inf, help="of tests, for a mutant")
    parser.add_argument("--seed", type=int, default=random.randrange(SEED_MAX))
    given = parser.parse_args(arguments)
    try:
        return Proof(subject or Subject(), given).run()
    except (Refused, ValueError) as refused:
        print(refused, file=sys.stderr)
        return 2


class Proof:
    """One run over some files."""

    def __init__(self, subject: Subject, given: argparse.Namespace) -> None:
        """Read the service and what is explained. Raises ValueError for what has no reason."""
        self._began = time.monotonic()
        self._deadline = self._began + given.minutes * 60
        self._subject = subject
        self._given = given
        self._explained = explained.read(subject.explained)
        self._sources, self._texts = self._read("app/**/*.py"), self._read("tests/**/*.py")
        self._outcomes: dict[Mutant, str] = {}
        self._done = 0
        self._told = self._began

    def _read(self, glob: str) -> dict[str, str]:
        service = self._subject.service
        return {
            path.relative_to(service).as_posix(): path.read_text(encoding="utf-8")
            for path in sorted(service.glob(glob))
        }

    def run(self) -> int:
        """Make the mutants, try them, and tell."""
        files = list(self._files())
        if not files:
            print(f"no file of {', '.join(self._subject.files)} differs")
            return self._tell(files)
        mutants = [each for file in files for each in mutants_of(file, self._sources[file])]
        if self._given.minutes < inf:
            print(f"seed {self._given.seed}", flush=True)
            random.Random(self._given.seed).shuffle(mutants)
        with ExitStack() as stack:
            self._try(mutants, stack)
        return self._tell(files)

    def _files(self) -> Iterator[str]:
        service = self._subject.service
        every = [path for glob in self._subject.files for path in sorted(service.glob(glob))]
        names = [path.relative_to(service).as_posix() for path in every]
        if unknown := [name for name in self._given.files if name not in names]:
            raise Refused(f"not a file of the engine: {', '.join(unknown)}")
        wanted = set(self._given.files or names)
        if ref := self._given.changed:
            listing = git(service, "diff", "--name-only", "--relative", "-z", ref, "--", ".")
            if listing.returncode:
                raise Refused(listing.stderr.strip())
            wanted &= set(listing.stdout.split("\0"))
        yield from (name for name in names if name in wanted)

    def _try(self, mutants: Sequence[Mutant], stack: ExitStack) -> None:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="mutation-"))
        ).resolve()
        environment = {"HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis")}
        if any("postgres" in text for text in self._texts.values()):
            from tools.postgres import postgres_server

            url = stack.enter_context(postgres_server())
            environment["TEST_POSTGRES_URL"] = url.render_as_string(hide_password=False)
        workers = [
            Worker(self._subject.service, folder / f"copy-{number}", environment)
            for number in range(AT_ONCE)
        ]
        for worker in workers:
            stack.callback(worker.close)
        pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        for worker in workers:
            stack.callback(worker.end)  # before the pool, whose threads may wait for it
        reach = self._survey(workers, pool)
        self._outcomes = dict.fromkeys(mutants, LEFT_OUT)
        waiting = iter(mutants)  # whoever is free takes the next: Python's lock lets one at a time
        for done in [pool.submit(self._work, worker, waiting, reach) for worker in workers]:
            done.result()

    def _survey(self, workers: Sequence[Worker], pool: ThreadPoolExecutor) -> Reach:
        tests = self._subject.tests
        collected = pool.map(lambda worker: worker.ask(do="collect", arguments=tests), workers)
        first = next(iter(collected))
        if not first.get("tests"):
            raise Refused(f"{workers[0].words()}\nno tests were found")
        # File by file in turns, so that each has much the same to do.
        files = sorted({test.split("::")[0] for test in first["tests"]})
        shares = [set(files[number :: len(workers)]) for number in range(len(workers))]
        reach = Reach(self._sources, self._texts)
        for survey in pool.map(
            lambda worker, share: worker.survey(
                [test for test in first["tests"] if test.split("::")[0] in share]
            ),
            workers,
            shares,
        ):
            reach.learn(survey)
        print(
            f"{len(reach.seconds)} tests pass without a mutant, and are measured "
            f"({time.monotonic() - self._began:.0f} s)",
            flush=True,
        )
        return reach

    def _work(self, worker: Worker, waiting: Iterator[Mutant], reach: Reach) -> None:
        for mutant in waiting:
            known = mutant.key in self._explained
            budget = min(self._given.seconds, EXPLAINED_SECONDS if known else inf)
            outcome = worker.attempt(mutant, reach, budget, self._deadline)
            self._outcomes[mutant] = outcome
            self._done += 1
            if outcome == SURVIVED and not known:
                count = len(reach.tests(mutant))
                print(f"\nSURVIVED, {count} tests run it:\n{explained.shown(mutant.key)}")
                print(mutant.diff, "\n", flush=True)
            if (now := time.monotonic()) - self._told > PROGRESS_SECONDS:
                self._told = now
                minutes = (now - self._began) / 60
                print(f"{self._done} of {len(self._outcomes)}, {minutes:.0f} min", flush=True)

    def _tell(self, files: Sequence[str]) -> int:
        found = Findings(self._outcomes, self._explained)
        left_out, unexplained = found.having(LEFT_OUT), found.unexplained
        stale = [] if left_out else found.stale
        print("", *found.table(files), "", f"not mutated: {NOT_MUTATED}", sep="\n")
        for key in stale:
            print(f"\nSTALE in {self._subject.explained.name}, not all that is like it survives:")
            print(explained.shown(key))
        if left_out:
            names = ", ".join(sorted({mutant.file for mutant in left_out}))
            print(
                f"LEFT OUT after {self._given.minutes:g} minutes: {len(left_out)} mutants of "
                f"{names}, and whether explanations are stale"
            )
        print(
            f"{len(self._outcomes) - len(left_out)} mutants tried, {len(unexplained)} survived "
            f"without explanation, {len(stale)} explanations are stale",
            flush=True,
        )
        return 1 if unexplained or stale else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what it has started ends, too
    sys.exit(main(sys.argv[1:]))
