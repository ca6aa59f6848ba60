"""The table, in Markdown, and where it stands in a text."""

from collections.abc import Callable, Mapping
from math import isfinite

from benchmarks.compare.count import Facts
from benchmarks.compare.fleet import DOCKER_SECONDS, PROCESSES
from benchmarks.compare.records import JOBS
from benchmarks.compare.scenario import FROZEN_SECONDS, QUIET_SECONDS

BEGIN = "<!-- made by make compare: begin -->"
END = "<!-- made by make compare: end -->"

# A run that comes so soon after the start is that of a due time that had passed.
SOON_SECONDS = 1

NONE_KEPT = "keeps no history"
NO_DUE_TIMES = "no due times"

HEAD = f"{PROCESSES} processes, a job every {JOBS['tick']} s"


def _runs(facts: Facts) -> str:
    return (
        f"{facts.runs} of {facts.due_times}" if facts.due_times else f"{facts.runs}, no due times"
    )


def _after(seconds: float, runs: int) -> str:
    return f"{seconds:.1f}" + (f", {runs} times" if runs > 1 else "")


def _down(facts: Facts) -> str:
    lost = facts.down_wait > SOON_SECONDS
    return _after(facts.down_wait, facts.down_runs) + (", that time is lost" if lost else "")


def _frozen(facts: Facts) -> str:
    if facts.stale_write:
        return "yes"
    return f"no: {facts.frozen_end}" if facts.frozen_end else "no"


def _exit(seconds: float) -> str:
    return f"{seconds:.1f}" if isfinite(seconds) else f"killed after {DOCKER_SECONDS:g}"


def _told(told: str | None) -> str:
    return NONE_KEPT if told is None else told


ROWS: Mapping[str, Callable[[Facts], str]] = {
    f"**left alone for {QUIET_SECONDS:g} s:** runs, of how many due times": _runs,
    "most runs of one due time": lambda facts: str(facts.most or NO_DUE_TIMES),
    "most bodies at once": lambda facts: str(facts.at_once),
    f"**one frozen for {FROZEN_SECONDS:g} s in a body:** next run after, s": lambda facts: (
        f"{facts.frozen_wait:.1f}"
    ),
    "runs that began beside the frozen body": lambda facts: str(facts.overlaps_frozen),
    "runs that began beside another": lambda facts: str(facts.overlaps),
    "the frozen body, going on, still wrote its row": _frozen,
    f"**one frozen for {FROZEN_SECONDS:g} s between bodies:** due times run once more": (
        lambda facts: str(facts.again) if facts.due_times else NO_DUE_TIMES
    ),
    "**one killed in a body:** next run after, s": lambda facts: f"{facts.killed_wait:.1f}",
    "its history says of the killed run": lambda facts: _told(facts.killed_told),
    f"**all restarted, a job of {JOBS['slow']} s:** next run after the last, s": (
        lambda facts: _after(facts.restarted_wait, facts.restarted_runs)
    ),
    "all down while it was due: next run after the start, s": _down,
    "**SIGTERM to all, in a body of 0.3 s:** it ended": lambda facts: (
        "by itself" if facts.stopped_finished else "cut short"
    ),
    "process gone after, s": lambda facts: _exit(facts.stopped_exit),
    "its history says of that run": lambda facts: _told(facts.stopped_told),
    "runs it calls running when all have ended": lambda facts: (
        NONE_KEPT if facts.running is None else str(facts.running)
    ),
    "**SIGTERM, and a thread that works on:** its process gone after, s": lambda facts: _exit(
        facts.thread_exit
    ),
    "the thread worked on after the shutdown was complete, s": lambda facts: (
        f"{facts.thread_after:.1f}"
    ),
    "most bodies at once until it ended": lambda facts: str(facts.thread_at_once),
    "its history says of the thread's run": lambda facts: _told(facts.thread_told),
}
"""What each line says, and how it is told of one peer."""


def table(columns: Mapping[str, Facts]) -> str:
    """Return a column for each peer, by its title."""
    lines = [(HEAD, *columns), ("---",) * (len(columns) + 1)]
    lines += [(label, *(tell(facts) for facts in columns.values())) for label, tell in ROWS.items()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def between_markers(text: str, new: str) -> str:
    """Put `new` where the text has a table between the two markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the text has no {BEGIN} with {END} after it")
    return f"{before}{begin}\n{new}\n{end}{after}"
