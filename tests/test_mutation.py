"""The proof by mutation, on a service of a few functions."""

import contextlib
import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import mutants
from tools.mutation.__main__ import Subject, main
from tools.mutation.mutant import mutants_of
from tools.mutation.trial import Worker

GREETING = """from functools import cache

SPACE, PUNCTUATION = " ", "!"


@cache
def greeting(name: str) -> str:
    words = ["hello"]
    words.append(name)
    return SPACE.join(words) + PUNCTUATION
"""

LIMIT = """def limited(count: int) -> int:
    return min(count, 10)


def lowered(count: int) -> int:
    count = int(count)
    while count > 10:
        count -= 1
    return count
"""

SERVICE = {
    "app/__init__.py": "",
    "app/greeting.py": GREETING,
    "app/limit.py": LIMIT,
    "app/answer.py": "def answer() -> int:\n    return 42\n",
    "tests/test_answer.py": """from app.answer import answer


def test_answer() -> None:
    assert answer() == 42
""",
    "tests/test_greeting.py": """from app.greeting import greeting


def test_greeting() -> None:
    assert greeting("you") == "hello you!"
""",
    "tests/test_limit.py": """from app.limit import limited, lowered


def test_limited() -> None:
    assert limited(3) == 3


def test_lowered() -> None:
    assert [lowered(count) for count in (9, 10, 12)] == [9, 10, 10]
""",
    "pytest.ini": "[pytest]\npythonpath = .\naddopts = --import-mode=importlib\n",
}

# Nothing tests what is above the limit.
SURVIVOR = """app/limit.py limited
- return min(count, 10)
+ return min(count, 11)
"""

EXPLAINED = """app/limit.py lowered
- count = int(count)
+ pass
"""

KILLED = """app/limit.py limited
- return min(count, 10)
+ pass
"""

# Only a process of its own runs it, whose lines nobody sees.
PROGRAM = """import sys

if __name__ == "__main__":
    sys.exit(42)
"""

TEST_OF_PROGRAM = """import subprocess
import sys


def test_program() -> None:
    assert subprocess.run([sys.executable, "-m", "app.program"]).returncode == 42
"""

PATIENCE = """import asyncio


async def wait() -> None:
    try:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    except TimeoutError:
        pass


async def answer() -> int:
    await wait()
    number = 42
    return number
"""

TEST_OF_PATIENCE = """import asyncio

from app.patience import answer


def test_answer() -> None:
    assert asyncio.run(answer()) == 42
"""

# It is seen to run what the other runs, and notices nothing.
TEST_OF_HASTE = """import asyncio

from app import patience


async def no_wait() -> None:
    pass


def test_haste(monkeypatch) -> None:
    monkeypatch.setattr(patience, "wait", no_wait)
    asyncio.run(patience.answer())
"""

# Read on import only, by the very file with the test.
JOBS = "JOBS = [min, max]\n"

TEST_OF_JOBS = """import pytest

from app.jobs import (
    JOBS,
)


@pytest.mark.parametrize("job", JOBS)
def test_job(job) -> None:
    assert job([1])
"""

# To delete the first of the two changes nothing that is tested.
SIZE = """def size(count: int) -> int:
    count = abs(count)
    count -= 5
    count = abs(count)
    return count
"""

TEST_OF_SIZE = """from app.size import size


def test_size() -> None:
    assert [size(count) for count in (0, 5, 10)] == [5, 0, 5]
"""

FIRST_OR_SECOND = """app/size.py size
- count = abs(count)
+ pass
"""

UNKNOWN = """app/limit.py limited
- return max(count, 10)
+ return max(count, 11)
"""


class Proof:
    """A service in a repository, and the command for it."""

    def __init__(self, folder: Path) -> None:
        """Write the service."""
        self.folder = folder / "service"
        self._explained = folder / "explained.txt"
        for name, text in SERVICE.items():
            self.write(name, text)
        author = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
        commit = (*author, "commit", "--quiet", "--no-gpg-sign", "-m", "A service")
        for command in [("init", "--quiet"), ("add", "."), commit]:
            assert mutants.git(self.folder, *command).returncode == 0
        self.output = self.errors = ""

    def write(self, name: str, text: str) -> None:
        """Write a file."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text)

    def make(self, *arguments: str, explained: str = "") -> int:
        """Return the exit code."""
        self._explained.write_text(explained)
        subject = Subject(self.folder, ("app/*.py",), ("tests",), self._explained)
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            exit_code = main(arguments, subject)
        self.output, self.errors = output.getvalue(), errors.getvalue()
        return exit_code

    def row(self, name: str) -> list[str]:
        """Return the line of the table, without the name."""
        rows = [line.split() for line in self.output.splitlines() if line.startswith(f"{name}  ")]
        return rows[0][1:]


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proof]:
    """Make a proof of the whole service, in which much is wrong."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tools.mutation.trial.HANG_SECONDS", 1.0)
        proof = Proof(tmp_path_factory.mktemp("proven"))
        explained = f"# It is one already.\n{EXPLAINED}\n# Not so.\n{KILLED}{UNKNOWN}"
        assert proof.make(explained=explained) == 1
        yield proof


@pytest.fixture
def proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proof:
    """Return a proof to be made, by one process."""
    monkeypatch.setattr("tools.mutation.__main__.AT_ONCE", 1)
    return Proof(tmp_path)


def test_what_a_test_notices_is_killed(proven: Proof) -> None:
    """A statement deleted in a decorated function, and constants of the module, are among it."""
    count, killed, *_, score = proven.row("app/greeting.py")[:-1]
    assert count == killed
    assert score == "100.0"


def test_what_no_test_is_seen_to_run_is_for_tests_of_processes(proof: Proof) -> None:
    """The lines of a process are not measured."""
    proof.write("app/program.py", PROGRAM)
    proof.write("tests/test_processes.py", TEST_OF_PROGRAM)
    assert proof.make("app/program.py") == 0
    assert int(proof.row("app/program.py")[1]) > 0


def test_what_is_done_after_a_timeout_is_killed_too(
    proof: Proof, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.11 does not show that a test runs it, only that another does."""
    monkeypatch.setattr("tools.mutation.trial.HANG_SECONDS", 1.0)
    proof.write("app/patience.py", PATIENCE)
    proof.write("tests/test_patience.py", TEST_OF_PATIENCE)
    proof.write("tests/test_haste.py", TEST_OF_HASTE)
    proof.make("app/patience.py")
    assert "- return number" not in proof.output
    assert int(proof.row("app/patience.py")[1]) > 0


def test_what_a_test_imports_is_for_that_test(proof: Proof) -> None:
    """No line of the app that it runs has the name."""
    proof.write("app/jobs.py", JOBS)
    proof.write("tests/test_jobs.py", TEST_OF_JOBS)
    assert proof.make("app/jobs.py") == 0
    assert int(proof.row("app/jobs.py")[1]) > 0


def test_a_hang_is_a_kill_of_its_own(proven: Proof) -> None:
    """A loop that never ends is ended, and counted apart."""
    assert int(proven.row("app/limit.py")[2]) > 0


def test_a_test_that_hangs_is_ended_by_itself(proof: Proof, tmp_path: Path) -> None:
    """Long before all of its round would have to be over."""
    endless = "def limited(count):\n    while True:\n        pass\n\n\nlowered = limited\n"
    limits = {"tests/test_limit.py::test_limited": 1.0}
    worker, began = Worker(proof.folder, tmp_path / "copy", {}), time.monotonic()
    try:
        worker.ask(do="collect", arguments=["tests"])
        answer = worker.ask(
            do="try", file="app/limit.py", source=endless, limits=limits, seconds=30.0
        )
    finally:
        worker.end()
        worker.close()
    assert answer == {"hung": True}
    assert time.monotonic() - began < 30


def test_a_survivor_is_shown_with_its_diff(proven: Proof) -> None:
    """It is shown as explained.txt would name it, and as people read a change."""
    assert SURVIVOR in proven.output
    assert "@@ -1,4 +1,4 @@\n def limited(count: int) -> int:\n" in proven.output


def test_a_survivor_may_be_explained(proven: Proof) -> None:
    """Then it is only counted."""
    assert EXPLAINED not in proven.output
    assert proven.row("app/limit.py")[4] == "1"


@pytest.mark.parametrize("stale", [KILLED, UNKNOWN], ids=["killed", "unknown"])
def test_an_explanation_of_no_survivor_is_stale(proven: Proof, stale: str) -> None:
    """A test kills the mutant, or there is none such any more."""
    assert f"not all that is like it survives:\n{stale}" in proven.output


def test_an_explanation_is_of_all_that_look_alike(proof: Proof) -> None:
    """One of two survives, and would hide the other."""
    proof.write("app/size.py", SIZE)
    proof.write("tests/test_size.py", TEST_OF_SIZE)
    assert proof.make("app/size.py", explained=f"# It is one already.\n{FIRST_OR_SECOND}") == 1
    assert f"not all that is like it survives:\n{FIRST_OR_SECOND}" in proof.output


def test_all_is_well_when_each_survivor_is_explained(proof: Proof) -> None:
    """An explanation of another file is none of its business."""
    assert proof.make("app/answer.py", explained=f"# It is one already.\n{EXPLAINED}") == 0


def test_an_explanation_has_a_reason(proof: Proof) -> None:
    """Without one nothing is tried."""
    assert proof.make(explained=SURVIVOR) == 2
    assert "no reason" in proof.errors


def test_a_change_is_tried_alone_and_what_was_left_out_is_said(proof: Proof) -> None:
    """In no time, that is all of it."""
    proof.write("app/greeting.py", GREETING + "\n")
    assert proof.make("--changed", "HEAD", "--minutes", "0", "--seed", "7") == 0
    count = proof.row("app/greeting.py")[0]
    assert f"LEFT OUT after 0 minutes: {count} mutants of app/greeting.py, and" in proof.output
    assert "seed 7\n" in proof.output
    assert "app/limit.py" not in proof.output


def test_what_no_test_runs_is_left_out_like_all_else(proof: Proof) -> None:
    """When the time is over it was not its turn: it has not survived."""
    proof.write("app/unused.py", "def unused() -> int:\n    return 42\n")
    assert proof.make("app/unused.py", "--minutes", "0") == 0
    assert "0 mutants tried, 0 survived" in proof.output


def test_a_condition_outside_of_functions_is_mutated_too() -> None:
    """It stands in no function, and defines nothing."""
    program = "import sys\n\nif sys.argv == ['go']:\n    print('gone')\n"
    sources = [mutant.source for mutant in mutants_of("app/program.py", program)]
    assert program.replace("==", "!=") in sources


def test_tests_that_fail_anyway_prove_nothing(proof: Proof) -> None:
    """They are run without a mutant first."""
    proof.write("tests/test_limit.py", "def test_limited() -> None:\n    assert False\n")
    assert proof.make() == 2
    assert "do not pass without a mutant: tests/test_limit.py::test_limited" in proof.errors
