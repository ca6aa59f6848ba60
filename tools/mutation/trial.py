"""Trying mutants: workers with copies of the service, and what has become of each mutant."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tools.mutants import Refused, copy
from tools.mutation.mutant import Mutant
from tools.mutation.reach import Reach

WORKER = Path(__file__).with_name("worker.py")

KILLED, HUNG, SURVIVED, LEFT_OUT = "killed", "by hang", "survived", "left out"

# A test has hung, or all of them, when that takes so much longer than before. A busy machine does
# not.
HANG_SECONDS = 10.0
HANG_FACTOR = 5.0


class Worker:
    """A process in a copy of the service of its own, which runs tests."""

    def __init__(self, service: Path, folder: Path, environment: Mapping[str, str]) -> None:
        """Start it, in a new folder."""
        copy(service, folder)
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("PYTEST_") and not name.startswith("PYTHON")
        }
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-P", WORKER, folder],
            env={**inherited, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Return its answer. Raises Refused if there is none."""
        assert self._process.stdin
        assert self._process.stdout
        with suppress(BrokenPipeError):
            print(json.dumps(request), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise Refused(f"a worker has died\n{self.words()}")
        answer: dict[str, Any] = json.loads(line)
        if "refused" in answer:
            raise Refused(answer["refused"])
        return answer

    def words(self) -> str:
        """Return the end of what its tests have printed."""
        log = self._folder.with_suffix(".log")
        return "\n".join(log.read_text(errors="replace").splitlines()[-20:])

    def end(self) -> None:
        """End it, and what it is doing: who waits for its answer gets none."""
        self._process.terminate()
        self._process.wait()

    def close(self) -> None:
        """Forget it, when it has ended and nobody asks it any more."""
        self._process.communicate()

    def survey(self, tests: Sequence[str]) -> dict[str, Any]:
        """Measure what tests take and run. Raises Refused unless all pass."""
        answer = self.ask(do="survey", tests=tests)
        if answer.get("code") not in (0, 5):
            what = answer.get("failed", "")
            raise Refused(f"{self.words()}\nthe tests do not pass without a mutant: {what}")
        return answer

    def attempt(self, mutant: Mutant, reach: Reach, budget: float, deadline: float) -> str:
        """Try the mutant by tests that take so many seconds in all, and return its outcome."""
        if time.monotonic() >= deadline:  # also of one that no test runs: it was not its turn
            return LEFT_OUT
        for tests in reach.rounds(mutant, budget):
            if not tests:
                continue
            limits = {test: limit(reach.seconds[test]) for test in tests}
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return LEFT_OUT
            answer = self.ask(
                do="try",
                file=mutant.file,
                source=mutant.source,
                limits=limits,
                seconds=min(limit(sum(reach.seconds[test] for test in tests)), remaining),
            )
            if answer.get("hung"):
                return HUNG if time.monotonic() < deadline else LEFT_OUT
            if answer.get("died") or answer["killed"]:
                reach.killed(mutant, answer.get("by", ""))
                return KILLED
        return SURVIVED


def limit(seconds: float) -> float:
    """Return after how many seconds that has hung which took so many without a mutant."""
    return HANG_SECONDS + HANG_FACTOR * seconds
