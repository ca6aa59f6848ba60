"""The runner of all checks."""

from collections import Counter
from pathlib import Path

import pytest

from tools import check

ONE_OF_EACH = """
import pytest

def test_passing():
    pass

def test_failing():
    assert False

@pytest.fixture
def broken():
    raise RuntimeError

def test_not_set_up(broken):
    pass

@pytest.mark.parametrize("number", [1, 2])
def test_not_run(number):
    pytest.skip("no database")

@pytest.mark.xfail(strict=True)
def test_known_to_fail():
    assert False
"""


def pytest_part(tmp_path: Path, text: str) -> check.Part:
    """Make a part that runs one file of tests."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_file.py").write_text(text)
    return check.pytest_part("tests", tmp_path, tmp_path / "report.xml", "-n", "0")


def test_tests_are_counted_by_how_they_went(tmp_path: Path) -> None:
    """A test that could not be set up has failed; one known to fail is not counted."""
    result = check.run(pytest_part(tmp_path, ONE_OF_EACH))
    assert (result.ok, result.passed, result.failed) == (False, 1, 2)
    assert result.not_run == Counter({"no database": 2})


def test_a_part_without_a_failing_test_can_still_fail(tmp_path: Path) -> None:
    """The linter's complaint counts as one failure, so that the last line cannot look green."""
    part = check.Part("lint", tmp_path, (("no_such_module",), ("this",)))
    assert check.run(part).failed == 1


def test_a_run_of_no_tests_is_a_failure(tmp_path: Path) -> None:
    """An empty suite proves nothing."""
    assert check.run(pytest_part(tmp_path, "")).failed == 1


def test_the_report_of_an_earlier_run_does_not_count(tmp_path: Path) -> None:
    """A run that ends before its report is written has passed nothing."""
    part = pytest_part(tmp_path, ONE_OF_EACH)
    check.run(part)
    crashing = check.Part(part.name, part.directory, (("no_such_module",),), part.report)
    assert (check.run(crashing).passed, check.run(crashing).failed) == (0, 1)


def test_a_failing_part_does_not_keep_the_next_from_running(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All parts are run and named, and the exit code is that of the worst."""
    parts = [
        check.Part("first", tmp_path, (("no_such_module",),)),
        check.Part("second", tmp_path, (("this",),)),
    ]
    assert check.main(parts) == 1
    table = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert ["first", "FAILED"] in [[line[0], line[-1]] for line in table]
    assert ["second", "ok"] in [[line[0], line[-1]] for line in table]


def test_the_summary_adds_up_and_names_what_was_not_run() -> None:
    """The counts stand alone on the last line, where programs look for them."""
    results = [
        check.Result("lint", ok=True, seconds=1.0),
        check.Result("tests, service", ok=True, seconds=61.5, passed=200),
        check.Result(
            "tests",
            ok=False,
            seconds=120.25,
            passed=30,
            failed=1,
            not_run=Counter({"Python 3.14 is not on this machine": 1, "no database": 2}),
        ),
    ]
    assert check.summary(results) == [
        "part            seconds  result",
        "lint                1.0  ok",
        "tests, service     61.5  ok",
        "tests             120.2  FAILED",
        "NOT RUN: Python 3.14 is not on this machine (1 test of 'tests')",
        "NOT RUN: no database (2 tests of 'tests')",
        "230 passed, 1 failed",
    ]
