"""What `make compare` counts and prints, told by stories made up here, and the README's table."""

import re
from dataclasses import asdict, replace
from itertools import count as numbers
from math import inf
from pathlib import Path

import pytest

from benchmarks.compare.count import (
    Evidence,
    Facts,
    Run,
    Told,
    at_once,
    count,
    outcome,
    overlaps,
    run_again,
    runs_of,
    split,
)
from benchmarks.compare.peers import PEERS, REQUIREMENTS
from benchmarks.compare.records import Event
from benchmarks.compare.table import BEGIN, END, HEAD, ROWS, between_markers, table
from tools.bake import TEMPLATE

README = (TEMPLATE / "README.md").read_text("utf-8")

# The wall clock's time when the monotonic clock shows zero.
MIDNIGHT = 1_000_000.0


class Story:
    """Events, told in order of time."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._events: list[Event] = []
        self._bodies = numbers(1)

    def note(self, at: float, what: str, pid: int = 0, name: str = "", detail: str = "") -> None:
        """Add an event."""
        self._events.append(Event(what, pid, name, detail, monotonic=at, wall=MIDNIGHT + at))

    def body(
        self, pid: int, at: float, until: float | None, *, due: str = "", cut: str = ""
    ) -> None:
        """Add a body; without `until` its process is ended before it. It writes if not cut."""
        name = f"body {next(self._bodies)}"
        self.note(at, "start", pid, name, due)
        if until is not None and not cut:
            self.note(until, "written", pid, name)
        if until is not None:
            self.note(until, "cut" if cut else "end", pid, name, cut)

    @property
    def events(self) -> list[Event]:
        """All that was told, by time."""
        return sorted(self._events, key=lambda event: event.monotonic)


def run(pid: int, began: float, ended: float, due: str = "") -> Run:
    """Make a run of which nothing else matters."""
    return Run(pid, due, began, ended, finished=True, cut_by="", frozen=False, written=None, wall=0)


def faults(*, bad: bool) -> Story:
    """Tell of three processes to which things are done: all goes well, or all goes wrong."""
    story = Story()
    story.note(0, "phase", name="quiet")
    for slot in range(3):
        for pid in [1, 2, 3] if bad else [1]:
            story.body(pid, 2 * slot + pid / 100, 2 * slot + 0.3, due=f"{2 * slot}")
    story.note(10, "phase", name="frozen in a body")
    story.body(1, 10.1, 18.2, due="10", cut="" if bad else "CancelledError")
    story.note(10.2, "stop", 1)
    story.body(2, 14.2, 14.5, due="14")
    story.note(18.2, "continue", 1)
    if bad:
        story.body(3, 14.4, 14.6, due="14")
    story.note(20, "phase", name="frozen between bodies")
    story.body(2, 22.1, 22.4, due="22")
    story.note(23, "stop", 1)
    story.body(2, 24.1, 24.4, due="24")
    story.note(31, "continue", 1)
    if bad:
        story.body(1, 31.1, 31.4, due="24")
    story.note(40, "phase", name="killed")
    story.body(1, 40.1, None, due="40")
    story.note(40.2, "kill", 1)
    story.note(40.2, "exit", 1)
    story.body(2, 43.2, 43.5, due="42")
    story.note(50, "phase", name="terminated")
    story.body(2, 50.1, 50.4, due="50", cut="CancelledError" if bad else "")
    story.note(50.2, "terminate", 2)
    if bad:
        story.note(60.2, "kill", 2)
    story.note(60.2 if bad else 50.7, "exit", 2)
    return story


def restarts(*, bad: bool) -> Story:
    """Tell of a job of twelve seconds over two restarts."""
    story = Story()
    story.note(0, "phase", name="started")
    story.body(1, 1, 1.3)
    story.note(2, "phase", name="restarted")
    story.note(4, "up", 2)
    for pid, at in [(2, 4.1), (3, 5.1)] if bad else [(2, 13)]:
        story.body(pid, at, at + 0.3)
    story.note(20, "phase", name="down")
    story.note(27, "up", 4)
    story.body(4, 37 if bad else 27.1, 38)
    return story


def thread(*, bad: bool) -> Story:
    """Tell of a process with a thread at work that is told to end."""
    story = Story()
    story.note(0, "phase", name="started")
    story.body(1, 1, None)
    story.note(1.1, "phase", name="terminated")
    story.note(1.1, "terminate", 1)
    story.note(2, "down", 1)
    if bad:
        story.note(8, "beat", 1, "body 1")
        story.body(2, 4, 6)
        story.note(11.1, "kill", 1)
    story.note(11.1 if bad else 2.5, "exit", 1)
    story.body(2, 12, None)
    return story


GOOD = Facts(
    runs=3,
    due_times=3,
    most=1,
    at_once=1,
    frozen_wait=4.0,
    overlaps=0,
    overlaps_frozen=1,
    stale_write=False,
    frozen_end="CancelledError",
    again=0,
    killed_wait=3.0,
    killed_told="abandoned",
    restarted_wait=12.0,
    restarted_runs=1,
    down_wait=0.1,
    down_runs=1,
    stopped_finished=True,
    stopped_told="ok",
    stopped_exit=0.5,
    running=0,
    thread_exit=1.4,
    thread_after=0.0,
    thread_at_once=1,
    thread_told="abandoned",
)

BAD = Facts(
    runs=9,
    due_times=3,
    most=3,
    at_once=3,
    frozen_wait=4.0,
    overlaps=1,
    overlaps_frozen=2,
    stale_write=True,
    frozen_end="",
    again=1,
    killed_wait=3.0,
    killed_told="nothing",
    restarted_wait=3.1,
    restarted_runs=2,
    down_wait=10.0,
    down_runs=1,
    stopped_finished=False,
    stopped_told="running",
    stopped_exit=inf,
    running=1,
    thread_exit=inf,
    thread_after=6.0,
    thread_at_once=2,
    thread_told="nothing",
)


def told(**runs: float) -> list[Told]:
    """Make a history: an outcome, and when its run began."""
    return [Told(MIDNIGHT + at, outcome) for outcome, at in runs.items()]


# The counting


def test_a_story_in_which_all_goes_well_is_counted() -> None:
    """Each due time once; the frozen body is stopped; each run is told of."""
    counted = count(
        Evidence(faults(bad=False).events, told(abandoned=40, ok=50)),
        Evidence(restarts(bad=False).events, []),
        Evidence(thread(bad=False).events, told(abandoned=1)),
    )
    assert asdict(counted) == pytest.approx(asdict(GOOD))


def test_a_story_in_which_all_goes_wrong_is_counted() -> None:
    """Each thing that can go wrong is seen."""
    counted = count(
        Evidence(faults(bad=True).events, told(running=50)),
        Evidence(restarts(bad=True).events, []),
        Evidence(thread(bad=True).events, []),
    )
    assert asdict(counted) == pytest.approx(asdict(BAD))


def test_nothing_is_told_by_who_keeps_no_history() -> None:
    """That differs from a history which does not know of a run."""
    assert outcome(run(1, 5, 6), None) is None
    assert outcome(run(1, 5, 6), []) == "nothing"


def test_a_run_is_told_of_by_what_is_told_of_its_time() -> None:
    """The run before and the one after it do not count."""
    one = replace(run(1, 5, 6), wall=MIDNIGHT + 5)
    assert outcome(one, told(error=3, ok=4.9, timeout=7)) == "ok"


def test_a_body_ends_with_its_process() -> None:
    """Killed, or gone by itself, whichever comes first; without either it goes on."""
    story = Story()
    story.body(1, 1, None)
    story.body(2, 1, None)
    story.body(3, 1, None)
    story.note(2, "kill", 1)
    story.note(3, "exit", 1)
    story.note(4, "exit", 2)
    assert [one.ended for one in runs_of(story.events)] == [2, 4, inf]


def test_a_body_is_frozen_if_its_process_was_stopped_in_it() -> None:
    """Not by a stop before or after it, nor by that of another process."""
    story = Story()
    story.body(1, 1, 3)
    story.body(1, 4, 5)
    story.body(2, 1, 3)
    story.note(2, "stop", 1)
    assert [(one.pid, one.began) for one in runs_of(story.events) if one.frozen] == [(1, 1)]


def test_a_run_belongs_to_the_phase_in_which_it_began() -> None:
    """However long it lasts."""
    story = Story()
    story.note(0, "phase", name="first")
    story.body(1, 1, 9)
    story.note(5, "phase", name="second")
    story.body(2, 6, 7)
    phases = split(story.events)
    assert {name: [one.pid for one in phase.runs] for name, phase in phases.items()} == {
        "first": [1],
        "second": [2],
    }


def test_runs_that_only_touch_do_not_overlap() -> None:
    """One may begin when another ends."""
    touching = [run(1, 0, 1), run(2, 1, 2)]
    crossing = [run(1, 0, 1), run(2, 0.5, 2), run(3, 0.6, 0.7)]
    assert (overlaps(touching), at_once(touching)) == (0, 1)
    assert (overlaps(crossing), at_once(crossing)) == (2, 3)


def test_a_due_time_run_twice_at_once_is_not_run_again() -> None:
    """Only one that had been run before the moment, and is run after it."""
    runs = [run(1, 1, 2, "a"), run(2, 1, 2, "a"), run(1, 5, 6, "b"), run(2, 6, 7, "a")]
    assert run_again(runs, since=5, until=9) == 1
    assert run_again(runs, since=5, until=6) == 0


# The table


def test_the_table_says_what_went_well_and_what_did_not() -> None:
    """A column for each, by its title."""
    lines = table({"good": GOOD, "bad": BAD}).splitlines()
    cells = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:] for line in lines}
    assert cells[HEAD] == ["good", "bad"]
    assert [*cells.values()][2:] == [
        ["3 of 3", "9 of 3"],
        ["1", "3"],
        ["1", "3"],
        ["4.0", "4.0"],
        ["1", "2"],
        ["0", "1"],
        ["no: CancelledError", "yes"],
        ["0", "1"],
        ["3.0", "3.0"],
        ["abandoned", "nothing"],
        ["12.0", "3.1, 2 times"],
        ["0.1", "10.0, that time is lost"],
        ["by itself", "cut short"],
        ["0.5", "killed after 10"],
        ["ok", "running"],
        ["0", "1"],
        ["1.4", "killed after 10"],
        ["0.0", "6.0"],
        ["1", "2"],
        ["abandoned", "nothing"],
    ]


def test_the_table_says_where_there_are_no_due_times_and_no_history() -> None:
    """A zero would look like a count."""
    nothing = replace(GOOD, due_times=0, most=0, killed_told=None, stopped_told=None, running=None)
    text = table({"nothing": nothing})
    assert text.count("no due times") == 3
    assert text.count("keeps no history") == 3


def test_the_readme_has_the_table_that_the_command_writes() -> None:
    """The same lines in the same order, and a column for each peer with the version it runs."""
    written = README.partition(BEGIN)[2].partition(END)[0].strip().splitlines()
    rows = [re.split(r" \| ", line.strip("| ")) for line in written]
    assert rows[0] == [HEAD, *(peer.title for peer in PEERS)]
    assert [row[0] for row in rows[2:]] == [*ROWS]
    assert {len(row) for row in rows} == {len(PEERS) + 1}


def test_a_new_table_takes_the_place_of_the_old_one() -> None:
    """And nothing else changes."""
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert between_markers(text, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}"])
def test_a_text_without_both_markers_is_refused(text: str) -> None:
    """Or the table would be lost without a word."""
    with pytest.raises(ValueError, match="the text has no"):
        between_markers(text, "new")


# What is installed


@pytest.mark.parametrize("list_", sorted(REQUIREMENTS.glob("*.txt")), ids=lambda list_: list_.stem)
def test_a_peer_runs_on_what_the_service_runs_on(list_: Path) -> None:
    """What both lists name has one version: the comparison is about the schedulers."""
    names = re.compile(r"^([a-z0-9-]+)==(\S+)", re.M)
    service = TEMPLATE / "{{cookiecutter.project_slug}}" / "requirements.txt"
    ours = dict(names.findall(service.read_text("utf-8")))
    theirs = dict(names.findall(list_.read_text("utf-8")))
    shared = ours.keys() & theirs.keys()
    assert {"fastapi", "uvicorn", "sqlalchemy"} <= shared
    assert {name: theirs[name] for name in shared} == {name: ours[name] for name in shared}
