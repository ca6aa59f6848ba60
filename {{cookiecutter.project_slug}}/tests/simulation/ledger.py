"""What the judge keeps of a history as it reads it, and what all of its rules ask."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from .history import Body, Fault, JobChanged, Row, Started, Terms

SECOND = 1_000_000
HOUR = 3600 * SECOND

# What nobody calls late: the jobs of 50 ms are claimed together, and messages take their time.
PROMPT = SECOND

# A process trusts its lease for this part of it; its clock may be wrong by a little.
TRUSTED, CLOCK_ERROR = 5 / 6, SECOND // 10

# By which part a timeout may be short or long: monotonic clocks drift.
DRIFT = 0.001

# A body begins so soon after its claim, or not at all.
START_SLACK = SECOND

# How long a process may take to stop after its grace: for cleaning up, and to tell the database.
STOP_SLACK = 2 * SECOND + SECOND // 2

# An overdue job that nobody asked for waits for up to so long, so that not all begin together.
CATCH_UP = 10 * SECOND

# The wait before a retry: it doubles with each failure in a row.
RETRY = 5 * SECOND

# After an outage, a process rests for up to so long before it tries again.
REST = 30 * SECOND


# What people do on purpose disturbs no process that it is not done to.
PLANNED = ("pause", "request", "by hand", "deploy", "interval")

# What keeps a process from doing anything, or its event loop.
HELD_UP = ("freeze", "block")


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that was broken."""

    at: int
    rule: str
    text: str
    name: str = ""
    """The job."""


@dataclass(slots=True)
class Life:
    """What is known of a process."""

    started: Started
    stopping: int | None = None
    over: int | None = None
    own: dict[str, Body] = field(default_factory=dict)
    """The last that has become of each job that it runs for itself."""
    own_begun: dict[str, Body] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    """How many wait for a run of a job that they have asked for."""


@dataclass(slots=True)
class Run:
    """A run: its claim, its lease, its body, its outcome."""

    claimed: int
    by: str
    due: int
    requested: bool
    leased: int
    """When its lease was written last."""
    lease: int
    given_up: bool = False
    """True: it was renewed so late that its process did not trust it any more."""
    begun: int | None = None
    told: int | None = None
    ended: int | None = None
    torn: int | None = None
    detail: str = ""
    """How the body has ended."""
    outcome: str | None = None
    store_now: int = 0


@dataclass(slots=True)
class Job:
    """What is known of a job."""

    row: Row | None = None
    terms: Terms | None = None
    changed: int = 0
    """When a process last said when it is due, and which."""
    changed_by: str = ""
    runs: dict[int, Run] = field(default_factory=dict)
    end: JobChanged | None = None
    """The row's change that has ended its run; the outcome comes right after."""


class Ledger:
    """What is known so far. `draw` gives what the processes' chance is for a key."""

    def __init__(self, draw: Callable[[str], float]) -> None:
        self.violations: list[Violation] = []
        self._draw = draw
        self._lives: dict[str, Life] = {}
        self._jobs: dict[str, Job] = {}
        self._faults: list[Fault] = []
        self._steps: list[int] = []
        self._offsets: list[tuple[int, int]] = []
        self._comers: dict[str, tuple[str, Row]] = {}
        self._healed: int | None = None
        self._now = 0

    def _broken(self, rule: str, text: str, name: str = "") -> None:
        self.violations.append(Violation(self._now, rule, text, name))

    def _befalls(self, fault: Fault) -> None:
        """Something goes wrong. Who is held up meanwhile has the consequences later. Who is frozen
        in a hold keeps others from the database until it goes on."""
        for each in list(self._faults):
            if (fault.kind, each.kind, each.target) == ("freeze", "hold", fault.process):
                if each.until >= fault.at:
                    until = fault.until + each.until - fault.at
                    self._faults.append(replace(each, until=until))
                continue
            held, other = (fault, each) if fault.kind in HELD_UP else (each, fault)
            if held.kind not in HELD_UP or other.kind in HELD_UP or each.until < fault.at:
                continue
            if other.process in (None, held.process):
                until = other.until + held.until - fault.at
                self._faults.append(replace(other, process=held.process, until=until))
        self._faults.append(fault)

    def _disturbed(self, process: str, since: int, *kinds: str) -> bool:
        """Whether a fault has touched the process, from then until now."""
        return any(
            fault.until >= since
            for fault in self._faults
            if fault.process in (None, process)
            and (fault.kind in kinds if kinds else fault.kind not in PLANNED)
        )

    def _stepped(self, since: int) -> bool:
        return any(step >= since for step in self._steps)

    def _job(self, name: str) -> Job:
        return self._jobs.setdefault(name, Job())

    def _differs(self, name: str, terms: Terms, since: int) -> bool:
        """Whether a process that has lived since then says otherwise of the job."""
        return any(
            life.started.jobs.get(name, terms) != terms
            for life in self._lives.values()
            if life.over is None or life.over >= since
        )

    def _set_back(self, since: int) -> int:
        """By how much the store's clock has been set back since then, at most."""
        offsets = [offset for at, offset in self._offsets if at >= since]
        before = [offset for at, offset in self._offsets if at < since][-1:]
        return max(0, max([*before, *offsets]) - min([*before, *offsets]))

    def _drawn(self, terms: Terms, key: str, now: int) -> int:
        """When a job is due that is claimed now, with the draw of this key."""
        chance = self._draw(key)
        if terms.splay is None:
            return now + round(terms.period * (1 - terms.jitter + 2 * terms.jitter * chance))
        return now - now % terms.period + terms.period + round(terms.splay * chance)

    def _spread(self, terms: Terms) -> int:
        return min(CATCH_UP, terms.splay or round(terms.period * terms.jitter))
