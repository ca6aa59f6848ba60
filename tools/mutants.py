"""Proves that the service's tests notice mistakes, by making each mistake in a copy of it.

Usage: python tools/mutants.py [NAME...]

A mutant is a file tools/mutants/NAME.patch:

    # The fence is checked before the job's statements, not after them.
    # tests: tests/cron/test_store.py tests/fundamentals
    # may hang
    --- a/app/cron/store.py
    +++ b/app/cron/store.py
    ...

Its first line says the mistake, `tests:` the files, folders or tests that should notice it,
relative to the service, and `may hang` (only where true) that a run without end is noticing it too.
Tests that run on both databases run on SQLite only, unless `tests:` names a file about Postgres.

1. Copy the service: what git tracks, and what is new and not ignored.
2. Run all the named tests in the copy as it is. They must pass.
3. For each mutant, two at a time: copy again, apply the patch exactly, run its tests.

A mutant is killed by a failing test and by nothing else: one that breaks an import proves nothing.
Exit code 0: all are killed. 1: one survived, no longer applies or is broken. 2: nothing was tried.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from subprocess import CompletedProcess

ROOT = Path(__file__).resolve().parent.parent
SERVICE = ROOT / "{{cookiecutter.project_slug}}"
PATCHES = ROOT / "tools" / "mutants"

AT_ONCE = 2  # the cores of the smallest machine we test on
MUTANT_TIMEOUT_SECONDS = 120.0
BASELINE_TIMEOUT_SECONDS = 600.0  # every mutant's tests in one run

KILLED = "killed"
SURVIVED = "SURVIVED"
STALE = "NO LONGER APPLIES"
BROKEN = "BROKEN PATCH"

PYTEST_FLAGS = ("-x", "-q", "--color=no", "-p", "no:cacheprovider", "-p", "no:randomly")
SPREAD = ("-n", str(AT_ONCE)) if find_spec("xdist") else ()
PYTEST_PASSED, PYTEST_FAILED = 0, 1
OUTPUT_LINES_MAX = 20


class Refused(Exception):
    """Nothing can be said about any mutant; the message says why."""


@dataclass(frozen=True)
class Mutant:
    """One mistake, and the tests that should notice it."""

    path: Path
    mistake: str
    tests: tuple[str, ...]
    may_hang: bool

    @property
    def name(self) -> str:
        """The name by which it is asked for."""
        return self.path.stem


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant, in one line, with the output that explains a bad end."""

    mutant: Mutant
    outcome: str
    by: str
    seconds: float
    output: str = ""


@dataclass(frozen=True)
class PytestRun:
    """A finished run of pytest. No exit code: it was stopped, being over its time."""

    exit_code: int | None
    output: str

    @property
    def failed_test(self) -> str | None:
        """The first failing test. A test that could not be collected or set up has not failed."""
        found = re.search(r"^FAILED (.+?)(?: - .*)?$", self.output, re.MULTILINE)
        return found.group(1) if found else None


def main(names: Sequence[str]) -> int:
    """Try the named mutants, or all, and return the exit code."""
    try:
        mutants = load(PATCHES, names)
        verdicts = try_all(SERVICE, mutants)
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 2
    return 0 if all(verdict.outcome == KILLED for verdict in verdicts) else 1


def load(patches: Path, names: Iterable[str] = ()) -> list[Mutant]:
    """Read the named patches of the folder, or all of them."""
    paths = {path.stem: path for path in sorted(patches.glob("*.patch"))}
    wanted = list(names) or list(paths)
    if unknown := [name for name in wanted if name not in paths]:
        raise Refused(f"no such mutant: {', '.join(unknown)}; there are: {', '.join(paths)}")
    if not wanted:
        raise Refused(f"no mutants in {patches}")
    return [read(paths[name]) for name in wanted]


def read(path: Path) -> Mutant:
    """Read a patch's header lines, those before the first that does not begin with '#'."""
    header = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        header.append(line.lstrip("#").strip())
    mistake = header[0] if header else ""
    tests: list[str] = []
    for line in header[1:]:
        if line.startswith("tests:"):
            tests += shlex.split(line.removeprefix("tests:"))
        elif line != "may hang":
            raise Refused(f"{path.name}: '# {line}' is neither 'tests: ...' nor 'may hang'")
    if not mistake or not tests or any(test.startswith("-") for test in tests):
        raise Refused(f"{path.name}: needs '# the mistake' and '# tests: tests/...' at its top")
    return Mutant(path, mistake, tuple(tests), may_hang="may hang" in header[1:])


def try_all(
    service: Path, mutants: Sequence[Mutant], timeout_seconds: float = MUTANT_TIMEOUT_SECONDS
) -> list[Verdict]:
    """Try the mutants on copies of the service, a printed line each and a count at the end."""
    width = max(len(mutant.name) for mutant in mutants)
    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
        workshop = Path(temporary).resolve()
        original = workshop / "original"
        copy(service, original)
        check_unmutated(original, mutants)
        verdicts = []
        with ThreadPoolExecutor(AT_ONCE) as pool:
            futures = [pool.submit(try_one, original, each, timeout_seconds) for each in mutants]
            try:
                for future in as_completed(futures):
                    verdict = future.result()
                    verdicts.append(verdict)
                    report(verdict, width)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    count = Counter(verdict.outcome for verdict in verdicts)
    print(
        f"{len(verdicts)} mutants: {count[KILLED]} killed, {count[SURVIVED]} survived, "
        f"{count[STALE]} no longer apply, {count[BROKEN]} broken",
        flush=True,
    )
    return verdicts


def copy(service: Path, target: Path) -> None:
    """Copy the service as the work tree has it, without what git ignores."""
    listing = git(service, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listing.returncode:
        raise Refused(f"git cannot list the service's files: {listing.stderr.strip()}")
    for name in filter(None, listing.stdout.split("\0")):
        if (service / name).is_file():  # git still lists what was deleted and not committed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(service / name, target / name)


def check_unmutated(original: Path, mutants: Sequence[Mutant]) -> None:
    """Run the tests of all mutants once without a mistake: they must pass."""
    started = time.monotonic()
    for postgres in (False, True):
        mine = [mutant for mutant in mutants if needs_postgres(mutant.tests) == postgres]
        if tests := sorted({test for mutant in mine for test in mutant.tests}):
            run = run_tests(original, tests, BASELINE_TIMEOUT_SECONDS, *SPREAD)
            if run.exit_code != PYTEST_PASSED:
                raise Refused(f"{end_of(run.output)}\nthe tests do not pass without a mutant")
    print(f"the tests pass without a mutant ({time.monotonic() - started:.1f} s)", flush=True)


def try_one(original: Path, mutant: Mutant, timeout_seconds: float) -> Verdict:
    """Apply one patch to a copy of its own and run its tests there."""
    started = time.monotonic()
    directory = original.with_name(f"mutant-{mutant.name}")
    shutil.copytree(original, directory)
    complaint = apply(mutant.path, directory)
    if complaint:
        outcome, by, output = STALE, "", complaint
    else:
        run = run_tests(directory, mutant.tests, timeout_seconds)
        outcome, by = judge(run, mutant)
        output = "" if outcome == KILLED else end_of(run.output)
    shutil.rmtree(directory, ignore_errors=True)
    return Verdict(mutant, outcome, by, time.monotonic() - started, output)


def apply(patch: Path, directory: Path) -> str:
    """Apply a patch without fuzz; return git's complaint, empty if there is none."""
    options = ("-c", "core.autocrlf=false", "-c", "apply.whitespace=nowarn")
    # Were the copy inside a repository, git apply would silently skip all of its files.
    answer = git(directory, *options, "apply", str(patch), ceiling=directory.parent)
    return "" if answer.returncode == 0 else answer.stderr.strip()


def git(directory: Path, *command: str, ceiling: Path | None = None) -> CompletedProcess[str]:
    """Run git in the directory; a repository above the ceiling is not looked for."""
    # A git hook sets GIT_DIR and more, which would lead git elsewhere.
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    if ceiling:
        environment["GIT_CEILING_DIRECTORIES"] = str(ceiling)
    return subprocess.run(
        ["git", *command], cwd=directory, env=environment, capture_output=True, text=True
    )


def needs_postgres(tests: Iterable[str]) -> bool:
    """Say whether they are to run on Postgres too: most mistakes show on SQLite, in less time."""
    return any("postgres" in test for test in tests)


def run_tests(
    directory: Path, tests: Sequence[str], timeout_seconds: float, *flags: str
) -> PytestRun:
    """Run pytest in the directory; when the time is over, kill it and all that it started."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTEST_") and name != "PYTHONPATH"
    }
    # A mutant of the same size and second as its original would be run from the old bytecode.
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    selected = () if needs_postgres(tests) else ("-k", "not postgres")
    # A file, not a pipe: a process that outlives the tests would keep a pipe open.
    with (directory.parent / f"{directory.name}.log").open(
        "w+", encoding="utf-8", errors="replace"
    ) as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *PYTEST_FLAGS, *flags, *selected, *tests],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        exit_code: int | None = None
        try:
            exit_code = process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.seek(0)
        return PytestRun(exit_code, log.read())


def judge(run: PytestRun, mutant: Mutant) -> tuple[str, str]:
    """Return what became of the mutant, and by what."""
    if run.exit_code is None:
        return (KILLED, "hang") if mutant.may_hang else (BROKEN, "hang")
    if run.exit_code == PYTEST_PASSED:
        return SURVIVED, ""
    if run.exit_code == PYTEST_FAILED and run.failed_test:
        return KILLED, run.failed_test
    return BROKEN, f"no test failed, and pytest's exit code is {run.exit_code}"


def report(verdict: Verdict, width: int) -> None:
    """Print one line, and below it why, unless the mutant was killed."""
    mutant = verdict.mutant
    line = f"{verdict.outcome:<17}  {mutant.name:<{width}}  {verdict.seconds:5.1f} s  {verdict.by}"
    if verdict.outcome != KILLED:
        line += f"\n    {mutant.mistake}"
        line += "".join(f"\n    | {text}" for text in verdict.output.splitlines())
    print(line, flush=True)


def end_of(output: str) -> str:
    """Return the last lines of an output, where pytest says what went wrong."""
    return "\n".join(output.rstrip().splitlines()[-OUTPUT_LINES_MAX:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
