"""Counts what happened, from the records alone. Nothing here starts, waits or asks a peer."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from benchmarks.compare.records import JOBS, Event

# A peer's own time of a start, taken before the body's, belongs to it if it is so near.
SAME_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Told:
    """What a peer's own tables say of a run."""

    started: float
    """Seconds of the wall clock."""
    outcome: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a story. `told` is None where the peer keeps nothing of its runs."""

    events: Sequence[Event]
    told: Sequence[Told] | None


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of the body, in seconds of the monotonic clock."""

    pid: int
    due: str
    began: float
    ended: float
    """When the body or its process ended; endless if neither has."""
    finished: bool
    """Whether the body came to its last line."""
    cut_by: str
    """The exception that ended it, if one did."""
    frozen: bool
    """Whether its process was stopped while it ran."""
    written: float | None
    """When its row was committed."""
    wall: float
    """When it began, by the wall clock."""


@dataclass(frozen=True, slots=True)
class Phase:
    """The runs that began in a phase, and what else happened in it."""

    events: Sequence[Event]
    runs: Sequence[Run]

    @property
    def began(self) -> float:
        """When the phase did."""
        return self.events[0].monotonic

    def first(self, what: str) -> Event:
        """Return the first event of that kind."""
        return next(event for event in self.events if event.what == what)

    def wait(self, what: str) -> float:
        """Return the seconds from that event to the next run."""
        moment = self.first(what).monotonic
        return min((run.began for run in self.runs if run.began > moment), default=inf) - moment

    def exit_of(self, pid: int) -> float:
        """Return the seconds from SIGTERM to the end; endless if it took a SIGKILL."""
        its = {event.what: event.monotonic for event in self.events if event.pid == pid}
        return inf if "kill" in its else its["exit"] - its["terminate"]


@dataclass(frozen=True, slots=True)
class Facts:
    """One column of the table, still in numbers."""

    runs: int
    due_times: int
    """Zero for a peer that has no due times."""
    most: int
    """How many runs the due time with most of them had."""
    at_once: int
    """How many bodies ran at the same time, as long as nothing was done to the processes."""
    frozen_wait: float
    """From the freeze of a process in a body to the next run."""
    overlaps: int
    """Bodies that began beside another while one was frozen, the frozen one not counted."""
    overlaps_frozen: int
    """Bodies that began while the frozen one had not ended."""
    stale_write: bool
    """Whether the frozen body wrote its row after another had begun."""
    frozen_end: str
    """The exception that ended the frozen body, if one did."""
    again: int
    """Due times that were run, and run again once a process frozen between bodies went on."""
    killed_wait: float
    """From the kill of a process to the next run."""
    killed_told: str | None
    restarted_wait: float
    """From the last run before a restart to the first one after it."""
    restarted_runs: int
    """How many runs came together then."""
    down_wait: float
    """From the start, after a due time that had passed while all were down, to the next run."""
    down_runs: int
    stopped_finished: bool
    """Whether the body that was running at a stop came to its end."""
    stopped_told: str | None
    stopped_exit: float
    """From the signal to the end of that process; endless if it had to be killed."""
    running: int | None
    """How many runs are running for ever, by the tables, when all processes have ended."""
    thread_exit: float
    """The same of the process whose thread works on."""
    thread_after: float
    """For how long after its shutdown was complete the thread gave signs of life."""
    thread_at_once: int
    """Bodies that ran at the same time, from the signal on, that one included."""
    thread_told: str | None


def count(faults: Evidence, restarts: Evidence, thread: Evidence) -> Facts:
    """Count what the three stories of a peer tell."""
    phases = split(faults.events)
    quiet, killed, stopped = phases["quiet"], phases["killed"], phases["terminated"]
    in_body, between = phases["frozen in a body"], phases["frozen between bodies"]
    dues = Counter(run.due for run in quiet.runs if run.due)
    [frozen] = [run for run in in_body.runs if run.frozen]
    kill = killed.first("kill")
    [cut] = [run for run in killed.runs if run.pid == kill.pid and run.ended == kill.monotonic]
    terminated = stopped.runs[0]  # the one that was waited for, and then all were terminated
    before, back, down = split(restarts.events).values()
    ending = split(thread.events)["terminated"]
    signal = ending.first("terminate")
    body = next(run for run in runs_of(thread.events) if run.pid == signal.pid)
    complete = [it.monotonic for it in ending.events if it.what == "down" and it.pid == signal.pid]
    beats = [it.monotonic for it in ending.events if it.what == "beat" and it.pid == signal.pid]
    return Facts(
        runs=len(quiet.runs),
        due_times=len(dues),
        most=max(dues.values(), default=0),
        at_once=at_once(quiet.runs),
        frozen_wait=in_body.wait("stop"),
        overlaps=overlaps([run for run in in_body.runs if not run.frozen]),
        overlaps_frozen=sum(frozen.began < run.began < frozen.ended for run in in_body.runs),
        stale_write=any(
            frozen.written is not None and frozen.began < run.began < frozen.written
            for run in in_body.runs
        ),
        frozen_end=frozen.cut_by,
        again=run_again(runs_of(faults.events), between.first("continue").monotonic, killed.began),
        killed_wait=killed.wait("kill"),
        killed_told=outcome(cut, faults.told),
        restarted_wait=back.runs[0].began - before.runs[-1].began,
        restarted_runs=together(back.runs),
        down_wait=down.wait("up"),
        down_runs=together(down.runs),
        stopped_finished=terminated.finished,
        stopped_told=outcome(terminated, faults.told),
        stopped_exit=stopped.exit_of(terminated.pid),
        running=None if faults.told is None else sum(it.outcome == "running" for it in faults.told),
        thread_exit=ending.exit_of(signal.pid),
        thread_after=max([*beats, complete[0]]) - complete[0],
        thread_at_once=at_once(
            [run for run in runs_of(thread.events) if run is body or run.began < body.ended]
        ),
        thread_told=outcome(body, thread.told),
    )


def split(events: Sequence[Event]) -> dict[str, Phase]:
    """Divide a story into its phases."""
    runs = runs_of(events)
    begins = [n for n, event in enumerate(events) if event.what == "phase"]
    phases = {}
    for begin, end in zip(begins, [*begins[1:], len(events)], strict=True):
        since = events[begin].monotonic
        until = events[end].monotonic if end < len(events) else inf
        phases[events[begin].name] = Phase(
            events[begin:end], [run for run in runs if since <= run.began < until]
        )
    return phases


def runs_of(events: Sequence[Event]) -> list[Run]:
    """Put together what belongs to one run, in the order in which they began."""
    runs = []
    for start in (event for event in events if event.what == "start"):
        its = [event for event in events if event.name == start.name]
        own = {event.what: event.monotonic for event in its}
        left = [
            it.monotonic
            for it in events
            if it.pid == start.pid
            and it.what in ("kill", "exit")
            and it.monotonic >= start.monotonic
        ]
        ended = own.get("end", own.get("cut", min(left, default=inf)))
        stops = [it.monotonic for it in events if it.pid == start.pid and it.what == "stop"]
        runs.append(
            Run(
                start.pid,
                start.detail,
                start.monotonic,
                ended,
                finished="end" in own,
                cut_by=next((it.detail for it in its if it.what == "cut"), ""),
                frozen=any(start.monotonic <= stop < ended for stop in stops),
                written=own.get("written"),
                wall=start.wall,
            )
        )
    return sorted(runs, key=lambda run: run.began)


def at_once(runs: Sequence[Run]) -> int:
    """Count how many bodies ran at the same time at most."""
    return max((sum(one.began <= run.began < one.ended for one in runs) for run in runs), default=0)


def overlaps(runs: Sequence[Run]) -> int:
    """Count the bodies that began while another had not ended."""
    return sum(any(one.began < run.began < one.ended for one in runs) for run in runs)


def run_again(runs: Sequence[Run], since: float, until: float) -> int:
    """Count the due times run between the two moments though they had been run before."""
    before = {run.due for run in runs if run.began < since}
    return len({run.due for run in runs if run.due and since <= run.began < until} & before)


def together(runs: Sequence[Run]) -> int:
    """Count the runs that come before the job would be due again."""
    return sum(run.began < runs[0].began + JOBS["slow"] / 2 for run in runs)


def outcome(run: Run, told: Sequence[Told] | None) -> str | None:
    """Return what is told of a run; "nothing", or None where nothing is told of any."""
    if told is None:
        return None
    found = (it.outcome for it in told if abs(it.started - run.wall) < SAME_SECONDS)
    return next(found, "nothing")
