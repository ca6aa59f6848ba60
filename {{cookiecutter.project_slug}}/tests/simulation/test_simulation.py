"""The production code under faults: 50 seeds each time, more by `python -m simulation`."""

import gc
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import pytest

from .batch import counted, digest, judged
from .history import JobChanged
from .ledger import SECOND, Violation
from .loop import World
from .picture import picture
from .simulation import Simulation
from .survey import SOMETIMES, Survey

SERVICE = Path(__file__).parents[2]

SEEDS = range(50)

# What 50 seeds always meet: the one that is left out needs a step of the clock at the right moment.
CERTAIN = set(SOMETIMES) - {"clock back over a due time"}


def test_no_rule_is_broken() -> None:
    """Whatever goes wrong, the contract holds. A failing seed says how to replay it.

    And there was much to go wrong: leases are lost, processes die with runs, commits are unknown.
    It is one test, so that a suite in several processes runs the seeds once, on all processors.
    """
    total = Survey()
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for verdict, survey in pool.map(counted, SEEDS):
            assert verdict is None, str(verdict)
            total.add(survey)
    assert {what for what in CERTAIN if not total.sometimes[what]} == set()


def test_a_seed_always_gives_the_same_history() -> None:
    """In this process and in another, whose strings hash otherwise."""
    mine = digest(judged(7).result.history)
    assert digest(judged(7).result.history) == mine
    program = "from simulation.batch import *; print(digest(judged(7).result.history))"
    path = os.pathsep.join([str(SERVICE), str(SERVICE / "tests")])
    other = subprocess.run(  # noqa: S603 -- our own command
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": path},
        check=True,
        capture_output=True,
        text=True,
    )
    assert other.stdout.strip() == mine


def test_a_seed_leaves_nothing_behind() -> None:
    """Its world is gone when it has been judged: thousands of seeds fit into one process."""
    counted(7)
    gc.collect()
    assert not [each for each in gc.get_objects() if type(each) is World]


@pytest.mark.parametrize("runs", [2_500, pytest.param(10_000, marks=pytest.mark.long)])
def test_without_faults_the_mean_gap_is_the_interval(runs: int) -> None:
    """Over thousands of runs, within 1 %."""
    hours = timedelta(minutes=1.44) * runs / timedelta(hours=1)
    quiet = Simulation(1, faults=False, hours=hours, kinds=["quick"], minutes=1.44)
    starts = [
        record.at
        for record in quiet.run().history
        if isinstance(record, JobChanged)
        and record.old is not None
        and record.new is not None
        and record.new.run_no > record.old.run_no
    ]
    mean = (starts[-1] - starts[0]) / (len(starts) - 1) / SECOND
    assert len(starts) > 0.99 * runs
    assert abs(mean / timedelta(minutes=1.44).total_seconds() - 1) < 0.01


def test_a_picture_shows_the_moment_of_a_violation() -> None:
    """A red line, with the rule that was broken."""
    result = judged(0).result
    svg = picture(
        result.history, Violation(3600 * SECOND, "a rule", "", "quick"), "t", 600 * SECOND
    )
    assert 'stroke="#e00000"' in svg
    assert "a rule: quick" in svg
