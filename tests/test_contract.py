"""The contract that a service puts its jobs through: it finds mistakes, and nothing else."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tools.bake import TEMPLATE

SERVICE = TEMPLATE / "{{cookiecutter.project_slug}}"

Reports = dict[str, dict[str, Any]]

MISTAKES = [
    "asks_a_server",
    "asks_a_server_that_is_away",
    "catches_everything",
    "cleans_up_for_long",
    "commits_before_the_fence",
    "computes",
    "computes_in_a_task",
    "counts_twice",
    "deletes_all_at_once",
    "does_not_look_up",
    "forgets_to_wait",
    "gives_way_to_the_dead",
    "has_a_lock_of_its_own",
    "has_a_row_for_each_chance",
    "has_a_row_for_each_moment",
    "has_no_teardown",
    "knows_no_zone",
    "lacks_a_table",
    "looks_at_the_wall",
    "needs_what_soon_ends",
    "never_ends",
    "never_ends_on_the_loop",
    "reaches_out",
    "reaches_out_in_a_thread",
    "rolls_dice",
    "sleeps",
    "starts_a_task",
    "starts_a_thread",
    "swallows_its_cancel",
    "waits_for_ever",
    "writes_what_cannot_be_read",
]

GOOD = [
    "copies_what_is_alive",
    "fetches_and_upserts",
    "has_a_session",
    "has_a_teardown",
    "has_a_thread",
    "has_tasks",
    "only_reads",
    "tries_again",
    "waits_and_writes",
    "warms_a_cache",
    "writes_in_a_thread",
]


@pytest.fixture(scope="module")
def trial() -> subprocess.CompletedProcess[str]:
    """Put all of them on trial, in one process."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.contract"],
        cwd=TEMPLATE,
        env={**os.environ, "PYTHONPATH": f"{SERVICE}{os.pathsep}{SERVICE / 'tests'}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def reports(trial: subprocess.CompletedProcess[str]) -> Reports:
    """Give what was said of each."""
    return {report["name"]: report for report in map(json.loads, trial.stdout.splitlines())}


def test_all_of_them_are_tried(reports: Reports) -> None:
    """None is left out, and none is unknown here."""
    assert sorted(reports) == sorted(MISTAKES + GOOD)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found(reports: Reports, name: str) -> None:
    """By the clause that it breaks. It says in which job, at which line, and how to mend it."""
    report = reports[name]
    message = report["found"][0]
    assert message.startswith(f"job {name!r}, {report['clause']}: ")
    assert any(place in message for place in report["places"]), message
    assert report["remedy"] in message


@pytest.mark.parametrize("name", GOOD)
def test_nothing_is_found_in_a_good_job(reports: Reports, name: str) -> None:
    """By any clause: a contract that complains of what is well would soon not be read."""
    assert reports[name]["found"] == []


def test_a_failed_run_is_logged_once(trial: subprocess.CompletedProcess[str]) -> None:
    """By the scheduler, and not again when the trial asks how it ended."""
    assert trial.stderr.count("ERROR knows_no_zone run 1: ") == 1


def test_a_run_that_was_disturbed_is_not_logged(trial: subprocess.CompletedProcess[str]) -> None:
    """The complaint tells of it: among so many tracebacks, it would not be found."""
    assert "ERROR has_a_lock_of_its_own run 2: " not in trial.stderr
