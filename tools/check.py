"""Runs all of the template's checks: what `make test` does once its environment is there.

Usage: .venv/bin/python tools/check.py

The service is checked in place, in the folder that cookiecutter copies, with its own settings; so
caches go elsewhere. A part that fails does not keep the others from running. At the end come a
table of the parts, what was not run and why, and one line of counts. Exit code 1: a part failed.
"""

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SERVICE = ROOT / "{{cookiecutter.project_slug}}"
CACHE = ROOT / ".cache"
SCRIPTS = ("hooks", "tools", "benchmarks", "tests")

CACHE_SETTINGS = {  # of the checks that run in the service's folder
    "HYPOTHESIS_STORAGE_DIRECTORY": CACHE / "hypothesis",
    "MYPY_CACHE_DIR": CACHE / "mypy",
    "PYTHONPYCACHEPREFIX": CACHE / "bytecode",
    "RUFF_CACHE_DIR": CACHE / "ruff",
}


@dataclass(frozen=True)
class Part:
    """Commands for one directory, given to `python -m`. With a report, one of them is pytest's."""

    name: str
    directory: Path
    commands: tuple[tuple[str, ...], ...]
    report: Path | None = None


@dataclass(frozen=True)
class Result:
    """How a part went. Tests that were not run are counted by their reason."""

    name: str
    ok: bool
    seconds: float
    passed: int = 0
    failed: int = 0
    not_run: Counter[str] = field(default_factory=Counter)


def pytest_part(name: str, directory: Path, report: Path, *options: str) -> Part:
    """Make a part of one run of pytest."""
    command = ("pytest", "-p", "no:cacheprovider", f"--junit-xml={report}", "-n", "auto", *options)
    return Part(name, directory, (command,), report)


PARTS = (
    Part("lint", ROOT, (("ruff", "check", *SCRIPTS), ("ruff", "format", "--check", *SCRIPTS))),
    Part("lint, service", SERVICE, (("ruff", "check", "."), ("ruff", "format", "--check", "."))),
    Part("types", ROOT, (("mypy",),)),
    Part("types, service", SERVICE, (("mypy",),)),
    pytest_part("tests, service", SERVICE, CACHE / "tests-service.xml"),
    pytest_part("tests", ROOT, CACHE / "tests.xml"),
)


def main(parts: Sequence[Part]) -> int:
    """Run every part and return the exit code."""
    results = [run(part) for part in parts]
    print("", *summary(results), sep="\n", flush=True)
    return 0 if all(result.ok for result in results) else 1


def run(part: Part) -> Result:
    """Run a part's commands, all of them, with their output going where ours goes."""
    print(f"\n== {part.name}", flush=True)
    environment = dict(os.environ)
    if part.directory == SERVICE:
        environment.update({name: str(path) for name, path in CACHE_SETTINGS.items()})
    if part.report:
        part.report.unlink(missing_ok=True)
    started = time.monotonic()
    exit_codes = [
        subprocess.run(
            [sys.executable, "-m", *command], cwd=part.directory, env=environment
        ).returncode
        for command in part.commands
    ]
    seconds = time.monotonic() - started
    ok = not any(exit_codes)
    passed, failed, not_run = read_report(part.report)
    if not ok and not failed:
        failed = 1  # the linter's failure, say, or pytest's own, counts as one
    return Result(part.name, ok, seconds, passed, failed, not_run)


def read_report(report: Path | None) -> tuple[int, int, Counter[str]]:
    """Return the tests passed, those failed, and those not run by reason, from a JUnit report."""
    passed, failed, not_run = 0, 0, Counter[str]()
    if report and report.exists():
        for test in ElementTree.parse(report).iter("testcase"):
            skipped = test.find("skipped")
            if test.find("failure") is not None or test.find("error") is not None:
                failed += 1
            elif skipped is None:
                passed += 1
            elif skipped.get("type") == "pytest.skip":
                not_run[skipped.get("message", "")] += 1
    return passed, failed, not_run


def summary(results: Sequence[Result]) -> list[str]:
    """Return the closing lines: the table, what was not run, the counts."""
    width = max(len(result.name) for result in results)
    lines = [f"{'part':<{width}}  seconds  result"]
    for result in results:
        lines.append(
            f"{result.name:<{width}}  {result.seconds:7.1f}  {'ok' if result.ok else 'FAILED'}"
        )
    for result in results:
        for reason, count in result.not_run.items():
            tests = "1 test" if count == 1 else f"{count} tests"
            lines.append(f"NOT RUN: {reason} ({tests} of '{result.name}')")
    passed = sum(result.passed for result in results)
    failed = sum(result.failed for result in results)
    lines.append(f"{passed} passed, {failed} failed")
    return lines


if __name__ == "__main__":
    sys.exit(main(PARTS))
