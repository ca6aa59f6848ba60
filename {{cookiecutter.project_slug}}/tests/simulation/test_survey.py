"""A batch counts what it has really met: a fault, and a run that it has struck."""

from dataclasses import replace

import pytest

from .history import Fault, Killed, Record, RunChanged, Stopped
from .survey import Survey
from .test_oracle import BEGUN, CLAIM, ENDED, MADE, OVER, late

HERE = Fault(late(4), "freeze", "p1", late(5), "tick")
ELSEWHERE = replace(HERE, process="p2")
ALL = replace(HERE, process=None)

STRUCK: dict[str, list[Record]] = {
    "a body": [*BEGUN, HERE],
    "a body, as all others": [*BEGUN, ALL],
    "a claim whose body has not begun": [*MADE, *CLAIM, HERE],
    "an end that is not recorded": [*OVER, HERE],
    "a body whose run is abandoned by its own process": [
        *BEGUN,
        RunChanged(late(3), "p1", "tick", 1, 0, None, "abandoned"),
        HERE,
    ],
}

MISSED: dict[str, list[Record]] = {
    "an end that is recorded": [*ENDED, HERE],
    "an end that could not be recorded": [*OVER, replace(HERE, at=late(60))],
    "another process": [*BEGUN, ELSEWHERE],
    "a dead process": [*BEGUN, Killed(late(3), "p1"), ALL],
    "a process that has stopped": [*BEGUN, Stopped(late(3), "p1", ()), ALL],
}


def pairs(history: list[Record]) -> dict[tuple[str, str], int]:
    """What is counted of this history."""
    survey = Survey()
    survey.read(history, late(99))
    return dict(survey.pairs)


@pytest.mark.parametrize("history", STRUCK.values(), ids=STRUCK)
def test_a_run_under_way_is_struck(history: list[Record]) -> None:
    """From its claim until its end is recorded."""
    assert pairs(history) == {("freeze", "quick"): 1}


@pytest.mark.parametrize("history", MISSED.values(), ids=MISSED)
def test_what_is_over_or_elsewhere_is_not_struck(history: list[Record]) -> None:
    """Also if the fault was aimed at it."""
    assert pairs(history) == {}


def test_what_is_done_to_a_job_needs_no_run() -> None:
    """A pause is met by its job alone. (In a seed, a job has the name of its kind.)"""
    assert pairs([*BEGUN, replace(ALL, kind="pause", target="other")]) == {("pause", "other"): 1}
