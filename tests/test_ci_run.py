"""The last line and the exit code of .ci/run, with a make that only pretends."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parent.parent / ".ci" / "run"

CHECKS_WELL = "printf 'NOT RUN: no database (2 tests)\\n12 passed, 0 failed\\n'"
CHECKS_BAD = "printf '11 passed, 1 failed\\n'; echo 'make: Error 1' >&2; exit 2"
MUTANTS_WELL = "echo '5 mutants: 5 killed, 0 survived'"
MUTANTS_BAD = "echo '5 mutants: 3 killed, 2 survived'; exit 2"
MUTATION_WELL = "echo '3 mutants tried, 0 survived without explanation, 0 explanations are stale'"
MUTATION_SURVIVED = (
    "echo '3 mutants tried, 1 survived without explanation, 0 explanations are stale'; exit 1"
)
MUTATION_STALE = (
    "echo '3 mutants tried, 0 survived without explanation, 1 explanations are stale'; exit 1"
)
NOTHING = "exit 2"


@pytest.mark.parametrize(
    ("checks", "mutants", "mutation", "last_line", "exit_code"),
    [
        (CHECKS_WELL, MUTANTS_WELL, MUTATION_WELL, "20 passed, 0 failed", 0),
        (CHECKS_BAD, MUTANTS_WELL, MUTATION_WELL, "19 passed, 1 failed", 1),
        (CHECKS_WELL, MUTANTS_BAD, MUTATION_WELL, "18 passed, 2 failed", 1),
        (CHECKS_WELL, MUTANTS_WELL, MUTATION_SURVIVED, "19 passed, 1 failed", 1),
        (CHECKS_WELL, MUTANTS_WELL, MUTATION_STALE, "20 passed, 1 failed", 1),
        (NOTHING, MUTANTS_WELL, MUTATION_WELL, "8 passed, 1 failed", 1),
        (CHECKS_WELL, NOTHING, MUTATION_WELL, "15 passed, 1 failed", 1),
        (CHECKS_WELL, MUTANTS_WELL, NOTHING, "17 passed, 1 failed", 1),
    ],
    ids=[
        "all well",
        "a test fails",
        "mutants survive",
        "mutants by rule survive",
        "an explanation is stale",
        "no checks",
        "no mutants",
        "no mutation",
    ],
)
def test_the_last_line_counts_checks_and_mutants(
    tmp_path: Path, checks: str, mutants: str, mutation: str, last_line: str, exit_code: int
) -> None:
    """A killed mutant is a pass; what does not get as far as its count is a failure."""
    finished = run(tmp_path, checks, mutants, mutation)
    assert finished.stdout.splitlines()[-1] == last_line
    assert finished.returncode == exit_code


def test_what_was_not_run_is_said_again_at_the_end(tmp_path: Path) -> None:
    """The mutants' lines come after the checks' own."""
    finished = run(tmp_path, CHECKS_WELL, MUTANTS_WELL, MUTATION_WELL)
    assert finished.stdout.splitlines()[-2] == "NOT RUN: no database (2 tests)"


def test_what_has_no_past_is_not_compared(tmp_path: Path) -> None:
    """In a clone of one commit nothing tells what has changed: that is said, and no failure."""
    clone = tmp_path / "clone"
    source = RUN.parent.parent.as_uri()
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", source, clone], check=True)
    shutil.copy(RUN, clone / ".ci" / "run")
    finished = run(tmp_path, CHECKS_WELL, MUTANTS_WELL, NOTHING, clone / ".ci" / "run")
    left_out, *_, last_line = finished.stdout.splitlines()[-3:]
    assert left_out == "LEFT OUT all mutants by rule: no earlier commit is here"
    assert (last_line, finished.returncode) == ("17 passed, 0 failed", 0)


def run(
    directory: Path, checks: str, mutants: str, mutation: str, command: Path = RUN
) -> subprocess.CompletedProcess[str]:
    """Run it where `make test`, `mutants` and `mutation` are these commands of the shell."""
    make = directory / "make"
    make.write_text(
        f'#!/bin/sh\ncase "$1" in\ntest) {checks} ;;\nmutants) {mutants} ;;\n'
        f"mutation) {mutation} ;;\nesac\n"
    )
    make.chmod(0o755)
    docker = directory / "docker"
    docker.write_text("#!/bin/sh\n")  # there is an engine, so none is started
    docker.chmod(0o755)
    environment = {**os.environ, "PATH": f"{directory}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run([command], env=environment, stdout=subprocess.PIPE, text=True)
