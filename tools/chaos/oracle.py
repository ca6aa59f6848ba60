"""The oracle: judges from the records of a run whether the contract was kept.

It shares no code with the engine and believes no number of its. Runs, duplicates, overlaps and gaps
come from the file of the bodies alone, on the machine's monotonic clock; a body names itself. What
only the database can tell is believed as far as this:

- Which writes were committed, and after which claim: `chaos_effect`, which the bodies fill and, for
  the claims, a trigger, in the order of the commits, whatever was done. A body counts those of its
  writes that were confirmed: so many there must be.
- How a run ended: its outcome may excuse the next from the floor, so it is held against how the
  body itself says that it ended.
- When a run was due: `due_at` of the history. Due times are drawn by chance, so from the file alone
  nobody can tell how long after it a run began. A due time that lies later than the start before
  it allows is a violation, or a late start could hide behind it. A start belongs to the latest
  claim of its process.
- Which claims no body followed, as when a process is killed in between: what is left over of the
  history. What was done to its process or to the database must explain such a claim; then the claim
  may explain a gap.

What is done excuses as much as the contract says, and no more:

- An outage of the database: no run begins while it lasts, nor until the rest is over that a process
  takes between two tries. No overlap: what is left of a run is cancelled before its lease ends.
- A link that is cut: the runs of its process are taken over when their leases end. Only a `def` job
  can overlap, for nobody can cancel a thread that waits for an answer.
- The one wall clock of SQLite's machine, stepped: a lease ends, and one start may be near the last.
- A wall clock on Postgres: nothing.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil, inf
from statistics import median

from tools.chaos.records import ENDS, FAULTS, OF_SERVICE, Claim, Event, Evidence

# Two starts nearer than this part of the interval are one due time that was run twice. Due times
# lie 1 - jitter or more apart; bodies can be nearer than their claims, but not by as much.
DUPLICATE = 0.35

# By how much a quiet gap may miss the schedule. A start that was late makes the next gap short.
QUIET_EARLY_SECONDS, QUIET_LATE_SECONDS = 0.2, 1.0

# Of a hundred starts of a quiet run, ninety-nine come sooner than this after they were due.
DELAY_SECONDS_P99 = 0.2

# Of an even share, each process of a quiet run has at least this part; where an even share is so
# few runs, chance alone may give a process none.
SHARE, SHARE_RUNS_MIN = 0.1, 20

# A start may come so long after the moment that the contract names, for a machine is busy.
SLACK_SECONDS = 2.0

# A body begins so soon after its claim or not at all: later the claim may be worth nothing.
START_SECONDS = 1.0

# A process looks at the database this often: the latest at which it learns of a run that another
# one has cut short, and that is due at once.
LOOK_SECONDS = 15.0

# What is overdue waits for a chance part of the jitter, at most so long.
CATCH_UP_SECONDS_MAX = 10.0

# The first retry after an error comes so long after its end, or an interval, jitter aside.
RETRY_SECONDS = 5.0

# A lease is renewed each third of it and trusted for five sixths, so what holds up a renewal begins
# two thirds of a lease or more before the lease ends. If it is over within half a lease, the lease
# is still trusted then, and renewed. What has lost trust is not, though a thread may go on.
LEASE_LEFT_MIN, HELD_UP_MIN = 2 / 3, 1 / 2

# After an outage, each rest between two tries is twice the one before, from so long on: it is over
# when the database has been back for as long as it was away, and this. But no rest is longer.
REST_SECONDS, REST_SECONDS_MAX = 1.0, 30.0

# On Postgres, what a process has locked that is cut off is free after so long.
LOCK_SECONDS_MAX = 10.0

# How far two readings of the clocks may be apart.
CLOCK_SECONDS = 0.05

# How the history tells of a run whose body ended so. A killed one can tell nothing.
OUTCOMES = {"end": "ok", "error": "error", "cancelled": "error", "refused": "error"}

# What the service may complain of when something is done to it: that the database or the process
# was away, and that a run was therefore too late, or could not write.
RUN = r"\w+ run \d+"
OUTAGES = (
    "AdminShutdown",
    "CannotConnectNow",
    "CrashShutdown",
    "IdleInTransactionSessionTimeout",
    "LockNotAvailable",
    "QueryCanceled",
)
EXPECTED = re.compile(
    r"\S+ \S+ (WARNING|ERROR) ("
    + "|".join(
        (
            r"cron: the database is (away|back|not told of the end)",
            r"(waiting for the database|the database is there)",
            r"cron: this process did not run",
            rf"cron: {RUN} does not end",
            rf"{RUN}: \w+, (which is not recorded|but it was not the last run any more)",
            rf"{RUN}: (its lease is lost|it has kept a transaction open)",
            rf"{RUN}: \w+: (it could not be renewed|it had run out|it ended before the body)",
            rf"{RUN}: \w+: {RUN} (is not the last any more|wrote for)",
            rf"{RUN}: \w+: (.*: other writes have kept it|nobody waits for this write)",
            rf"{RUN}: \w+: \(sqlite3.OperationalError\) (disk I/O|database .*(locked|full))",
            rf"{RUN}: \w+: \(psycopg.(OperationalError|errors.({'|'.join(OUTAGES)}))\) ",
        )
    )
    + ")"
)


Spans = Mapping[str, list[tuple[float, float]]]
"""Of each job, from when to when something was so."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the service promises of a job. Seconds."""

    name: str
    interval: float
    jitter: float
    threaded: bool = False

    @property
    def floor(self) -> float:
        """The shortest time from a start until the next run is due."""
        return self.interval * (1 - self.jitter)

    @property
    def ceiling(self) -> float:
        """The longest time from a start until the next run is due."""
        return self.interval * (1 + self.jitter)

    @property
    def retry(self) -> float:
        """The shortest time from an error until the next run is due."""
        return min(self.interval, RETRY_SECONDS) * (1 - self.jitter)

    @property
    def catch_up(self) -> float:
        """The longest that an overdue run waits."""
        return min(CATCH_UP_SECONDS_MAX, self.interval * self.jitter)


# The jobs of service.py.
JOBS = (
    Job("quick", 1, 0.3),
    Job("thread", 1, 0.3, threaded=True),
    Job("fails", 3, 0.3),
    Job("steady", 5, 0),
)


@dataclass(frozen=True, slots=True)
class Run:
    """A body from its start to its end. How it ended: one of ENDS, "killed", or "never".

    Or, with `how` "lost", a claim that no body followed, which ended as it began.
    """

    job: str
    pid: int
    start: float
    end: float
    how: str
    body: str = ""
    confirmed: int = 0
    """How many of its writes the body knows to be committed."""


@dataclass(frozen=True, slots=True)
class Lateness:
    """How long after the latest moment at which it can have been due a run started."""

    seconds: float
    bound: float

    @property
    def left(self) -> float:
        """How far it is from the bound."""
        return self.bound - self.seconds


@dataclass(slots=True)
class Row:
    """What is found of one job."""

    job: Job
    due_times: int = 0
    """How many different ones the claims name."""
    claims: int = 0
    runs: int = 0
    duplicates: int = 0
    near: int = 0
    """Starts as near as duplicates that the contract allows: a retry, after a cut-short run, or
    after a step of SQLite's wall clock."""
    overlaps: int = 0
    overlaps_stopped: int = 0
    """Overlaps that a stop explains: the lease of the run that began first can have ended."""
    overlaps_cut_off: int = 0
    """The same of a thread whose process was cut off."""
    overlaps_stepped: int = 0
    """The same where SQLite's wall clock was stepped."""
    gaps: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    latest: Lateness | None = None
    """The one that came nearest to its bound, or furthest beyond."""


@dataclass(slots=True)
class Verdict:
    """What is found. Without violations the contract was kept."""

    rows: list[Row] = field(default_factory=list)
    shares: dict[int, int] = field(default_factory=dict)
    """How many runs each process of a quiet run began."""
    faults: Counter[str] = field(default_factory=Counter)
    """How often each thing was done, by its name; of "disconnect", to how many connections."""
    ends: Counter[str] = field(default_factory=Counter)
    """How the bodies ended. Those that were "refused" wanted to write, and were not the last."""
    stale_writes: int = 0
    lost: int = 0
    """Due times that nobody has run, and confirmed writes that are not there."""
    violations: list[str] = field(default_factory=list)

    @property
    def delays(self) -> list[float]:
        """The start delays of all jobs."""
        return [delay for row in self.rows for delay in row.delays]


def percentile(values: Sequence[float], part: float) -> float:
    """Return the smallest value that at least this part of the values do not exceed."""
    return sorted(values)[max(0, ceil(part * len(values)) - 1)]


def judge(
    evidence: Evidence,
    jobs: Sequence[Job],
    *,
    processes: int,
    lease: float,
    quiet: bool,
    busy: bool = False,
) -> Verdict:
    """Judge a run of so many processes. In a quiet one nothing is done to any of them.

    On a machine that is busy with other work, what comes late by less than SLACK_SECONDS says
    nothing of the service.
    """
    judge = _Judge(evidence, processes, lease, quiet, busy)
    judge.check_clock()
    judge.check_processes()
    judge.check_writes()
    for job in jobs:
        row = Row(job)
        judge.verdict.rows.append(row)
        lost = judge.match_claims(row)
        judge.check_starts(row)
        judge.check_overlaps(row)
        judge.check_gaps(row, lost)
        judge.check_due_times(row)
    if quiet and not busy:
        judge.check_delays()
    if quiet:
        judge.check_shares()
    return judge.verdict


class _Judge:
    def __init__(
        self, evidence: Evidence, processes: int, lease: float, quiet: bool, busy: bool
    ) -> None:
        self.verdict = Verdict()
        self._evidence = evidence
        self._events = sorted(evidence.events, key=lambda event: event.monotonic)
        self._processes = processes
        self._lease = lease
        self._quiet = quiet
        self._busy = busy
        steps = [event for event in self._events if event.what == "step"]
        # The clock of whoever has one for himself says nothing: the database's counts.
        self._own_clocks = {event.pid for event in steps if event.pid}
        self._steps = [event for event in steps if not event.pid]
        # The median, for between its two readings a process can be stopped.
        self._offset = median(self._offsets() or [0.0])
        self._signals = self._by_process("kill", "stop", "terminate", "cut")
        self._continues = self._by_process("continue", "mend")
        self._stopped = self._spans("stop", "continue")
        self._cut_off = self._spans("cut", "mend")
        self._outages = self._read_outages()
        self._locked_by_stops, self._locked_by_cuts = self._read_locks()
        self._runs = self._read_runs()

    # Whether it can be judged at all

    def check_clock(self) -> None:
        """Find that the wall clock was set, for then due times mean nothing."""
        offsets = self._offsets()
        tenth = max(1, len(offsets) // 10)
        if offsets and abs(step := median(offsets[-tenth:]) - median(offsets[:tenth])) > (
            CLOCK_SECONDS
        ):
            self._violation(None, f"the wall clock was set by {step:.3f} s")

    def check_processes(self) -> None:
        """Find that other processes were there than should be, or other things done to them."""
        self.verdict.faults = faults = Counter[str]()
        for event in self._events:
            if event.what in FAULTS and self._in_window(event.monotonic):
                faults[event.what] += int(event.amount) if event.what == "disconnect" else 1
        if self._quiet == bool(faults):
            self._violation(None, f"{dict(faults) or 'nothing'} was done to the processes")
        ups = [event.monotonic for event in self._events if event.what == "up"]
        if (early := sum(up <= self._evidence.since for up in ups)) != self._processes:
            self._violation(None, f"{early} processes came up, not {self._processes}")
        if len(ups) > self._processes + faults["kill"] + faults["terminate"]:
            self._violation(None, "a process ended to which nothing was done")
        for line in self._evidence.complaints:
            if self._quiet or not EXPECTED.match(line):
                self._violation(None, f"the service complains: {line}")

    # What must never be

    def check_starts(self, row: Row) -> None:
        """Find starts nearer than due times can be."""
        for one, two in pairwise(self._runs[row.job.name]):
            gap = two.start - one.start
            if gap >= DUPLICATE * row.job.interval:
                continue
            if self._may_be_near(row.job, one, two):
                row.near += 1
            else:
                row.duplicates += 1
                self._violation(two.start, f"{row.job.name}: two starts {gap:.3f} s apart")

    def _may_be_near(self, job: Job, one: Run, two: Run) -> bool:
        if any(step.amount > 0 for step in self._steps_between(one.start, two.start)):
            return True
        if one.how == "error":
            return two.start >= one.end + job.retry
        return one.how == "cancelled" and self._terminated(one) and two.start >= one.end

    def _terminated(self, run: Run) -> bool:
        """Whether SIGTERM came to its process before it had ended."""
        return any(
            signal.what == "terminate" and signal.monotonic < run.end + CLOCK_SECONDS
            for signal in self._signals[run.pid]
        )

    def check_overlaps(self, row: Row) -> None:
        """Find runs of the job at the same time. What is explained is named apart."""
        name, runs = row.job.name, self._runs[row.job.name]
        for index, one in enumerate(runs):
            if one.how == "never":
                self._violation(one.start, f"{name}: a run that never ended")
            for two in runs[index + 1 :]:
                if two.start >= one.end:
                    break
                stops = [*self._stopped[one.pid], *self._locked_by_stops[name]]
                cuts = [*self._cut_off[one.pid], *self._locked_by_cuts[name]]
                cuts = cuts if row.job.threaded else []
                if self._steps_between(one.start, two.start):
                    row.overlaps_stepped += 1
                elif self._lease_can_have_ended(one, two.start, stops):
                    row.overlaps_stopped += 1
                elif self._lease_can_have_ended(one, two.start, cuts):
                    row.overlaps_cut_off += 1
                else:
                    row.overlaps += 1
                    both = min(one.end, two.end) - two.start
                    self._violation(two.start, f"{name}: two runs at once for {both:.3f} s")

    def _lease_can_have_ended(
        self, run: Run, at: float, spans: Iterable[tuple[float, float]]
    ) -> bool:
        """Whether one of these kept the run's lease from being renewed until it ended by then.

        Its own process was stopped, or one that held the write lock. That the process of the other
        run was stopped is no reason: it begins soon after its claim, which had to wait for the end
        of the lease; or long after it, and that is a violation whatever the reason.
        """
        for stop, go in spans:
            since = max(stop, run.start)  # its claim was a renewal
            if (
                at - since >= LEASE_LEFT_MIN * self._lease
                and go - since >= HELD_UP_MIN * self._lease
            ):
                return True
        return False

    def check_writes(self) -> None:
        """Find writes of a run that was not its job's last, and writes that are not there.

        Nothing that is done, to whatever, excuses either.
        """
        runs = {run.body: run for runs in self._runs.values() for run in runs}
        claimed: dict[str, tuple[int, int]] = {}
        latest: dict[str, float] = defaultdict(lambda: -inf)
        written = Counter[str]()
        for commit in self._evidence.commits:
            if commit.what == "claim":
                claimed[commit.job] = commit.pid, commit.run_no
                continue
            written[commit.body] += 1
            run = runs.get(commit.body)
            start = inf if run is None else run.start
            # Who claimed the job last; and, since the number is the engine's own, also whether a
            # body that started later has written before.
            own = claimed.get(commit.job) == (commit.pid, commit.run_no)
            if not own or run is None or start < latest[commit.job]:
                self.verdict.stale_writes += 1
                self._violation(self._monotonic(commit.at), f"{commit.job}: a stale write")
            latest[commit.job] = max(start, latest[commit.job])
        for run in runs.values():
            self.verdict.ends[run.how] += 1
            if written[run.body] < max(run.confirmed, run.how == "end"):
                self.verdict.lost += 1
                self._violation(run.start, f"{run.job}: what a run has written is not there")

    # What must be in time

    def check_gaps(self, row: Row, lost: Iterable[Run]) -> None:
        """Find gaps that are longer than the contract allows and, in a quiet run, shorter ones."""
        job, runs, (since, until) = row.job, self._runs[row.job.name], self._window
        row.runs = sum(self._in_window(run.start) for run in runs)
        row.gaps = [two.start - one.start for one, two in pairwise(runs) if one.start >= since]
        tries = sorted([*runs, *lost], key=lambda run: run.start)
        if not tries or tries[0].start > since + job.ceiling + SLACK_SECONDS:
            self.verdict.lost += 1
            self._violation(None, f"{job.name}: it did not begin to run")
        for one, two in pairwise(tries):
            if not since <= two.start <= until:
                continue
            gap, due, bound = two.start - one.start, *self._bound(job, one)
            lateness = Lateness(two.start - due, bound - due)
            if row.latest is None or lateness.left < row.latest.left:
                row.latest = lateness
            most = bound - one.start
            if gap > most:
                self._violation(two.start, f"{job.name}: a gap of {gap:.3f} s, not {most:.3f} s")
            least = min(job.floor, job.retry) if one.how == "error" else job.floor
            if self._quiet and not self._busy and gap < least - QUIET_EARLY_SECONDS:
                self._violation(two.start, f"{job.name}: a gap of {gap:.3f} s, not {least:.3f} s")
        open_gaps = [run for run in tries if run.start <= until][-1:]
        for last in open_gaps:
            if until > self._bound(job, last)[1]:
                self.verdict.lost += 1
                self._violation(until, f"{job.name}: no run for {until - last.start:.3f} s")

    def _bound(self, job: Job, run: Run) -> tuple[float, float]:
        """Return the latest moment at which the next run can be due, and at which it has started.

        It is due at most a ceiling after the start, or after the end where a run outlives its slot.
        In a quiet run it starts then. Else, in this order:

        1. If the process was killed, stopped or cut off before it had recorded the end, the lease
           must end. At the latest it was renewed just then. So must that of a claim that nobody
           was told of.
        2. If SIGTERM cut the run short, it is due at once, and others see it when they look next.
        3. A stopped process may hold the database's one write lock until it is continued. If then
           the run's own process has been stopped and continued, too, it may be the first to write,
           and records an end from which a whole gap counts.
        4. After an outage of the database, the rest of the processes must be over. Where the end
           could not be recorded before, a whole gap can count from then.
        5. After a step of SQLite's wall clock, the processes must look again; it is due within a
           whole gap from then.
        6. What is overdue waits for the catch-up delay.
        """
        signals = [
            signal
            for signal in self._signals[run.pid]
            if run.start - SLACK_SECONDS <= signal.monotonic <= run.end + SLACK_SECONDS
        ]
        cut_short = run.how == "cancelled" and any(it.what == "terminate" for it in signals)
        due = run.start + job.ceiling
        if run.how in ENDS and run.end > run.start + job.floor:
            due = run.end + job.ceiling
        if self._quiet:
            return due, due + (SLACK_SECONDS if self._busy else QUIET_LATE_SECONDS)
        late = job.catch_up + SLACK_SECONDS  # what is done until then can come before the start
        free = due if run.how != "lost" else max(due, run.start + self._lease)
        for signal in signals:
            gone = signal.monotonic
            if signal.what == "terminate":
                gone = self._gone_at(signal)
                if cut_short or run.how == "lost":
                    free = max(free, gone + LOOK_SECONDS)
            free = max(free, gone + self._lease)
        if locked := max(self._locked(job.name, run.start, free), default=0.0):
            free += locked
            if any(signal.what in ("stop", "cut") for signal in signals):
                free += job.ceiling
        for away, rested in self._outages:
            if run.start <= rested and away <= free + late:
                free = max(free, rested)
                if run.end > away - SLACK_SECONDS:
                    free += job.ceiling
        for step in self._steps:
            if run.start <= step.monotonic <= free + late:
                free = max(free, step.monotonic + LOOK_SECONDS + job.ceiling)
        return due, free + late

    def _gone_at(self, signal: Event) -> float:
        """When the process that was terminated had ended its part, at the latest."""
        downs = [e.monotonic for e in self._events if e.what == "down" and e.pid == signal.pid]
        return max([signal.monotonic, *downs])

    def _locked(self, job: str, since: float, until: float) -> Iterator[float]:
        """For how long each process that was held up can have kept others from the job."""
        for stop, go in [*self._locked_by_stops[job], *self._locked_by_cuts[job]]:
            if stop <= until and since <= go and go - stop > 2 * CLOCK_SECONDS:
                yield go - stop

    def check_delays(self) -> None:
        """Find that too many runs began too long after they were due."""
        delays = self.verdict.delays
        if delays and (p99 := percentile(delays, 0.99)) >= DELAY_SECONDS_P99:
            self._violation(None, f"the start delay has a p99 of {p99 * 1000:.0f} ms")

    def check_shares(self) -> None:
        """Find a process that hardly did anything."""
        runs = [run for runs in self._runs.values() for run in runs if self._in_window(run.start)]
        begun = Counter(run.pid for run in runs)
        ups = [event.pid for event in self._events if event.what == "up"]
        self.verdict.shares = {pid: begun[pid] for pid in ups}
        least = SHARE * len(runs) / self._processes
        for pid, share in self.verdict.shares.items():
            if share < least and least >= SHARE * SHARE_RUNS_MIN:
                self._violation(None, f"process {pid} began {share} runs, not {least:.1f}")

    # What the history says

    def match_claims(self, row: Row) -> list[Run]:
        """Find each start's claim, for its delay. Give the claims that no body followed."""
        name, lost = row.job.name, list[Run]()
        claims = self._claims(name)
        counted = [claim for claim in claims if self._in_window(self._at(claim))]
        row.claims, row.due_times = len(counted), len({claim.due for claim in counted})
        for run in self._runs[name]:
            latest = run.start + CLOCK_SECONDS
            own = [it for it in claims if it.pid == run.pid and self._at(it) <= latest]
            if not own:
                self._violation(run.start, f"{name}: a run that nobody has claimed")
                continue
            claim = own[-1]
            claims.remove(claim)
            at, due = self._at(claim), self._due(claim)
            if claim.outcome not in self._outcomes(row.job, run, at):
                words = f"{name}: a body ended ({run.how}), and the history says {claim.outcome}"
                self._violation(run.start, words)
            if self._in_window(run.start) and due is not None:
                row.delays.append(run.start - due)
            begun = run.start - at
            if begun > (SLACK_SECONDS if self._busy else START_SECONDS) + CLOCK_SECONDS:
                self._violation(run.start, f"{name}: a body began {begun:.3f} s after its claim")
                lost.append(Run(name, run.pid, at, at, "lost"))
        for claim in claims:
            at = self._at(claim)
            if self._explained(claim):
                lost.append(Run(name, claim.pid, at, at, "lost"))
            else:
                self.verdict.lost += 1
                self._violation(at, f"{name}: a claim ({claim.outcome}) that nobody has run")
        return lost

    def _outcomes(self, job: Job, run: Run, claimed_at: float) -> set[str | None]:
        """Return what the history may say of how the run ended.

        What was done can keep an end from being recorded. SIGTERM cuts short what does not end
        well. A thread that does may have lost its lease, and is not told: it, or its process, was
        held up, or SQLite's wall clock was stepped. No body lasts as long as a timeout.
        """
        found: set[str | None] = {OUTCOMES.get(run.how)}
        if not self._quiet:
            found |= {None, "abandoned"}
        if run.how != "end":
            return found | {"interrupted"} if self._terminated(run) else found
        noticed = run.end + SLACK_SECONDS
        stopped = any(claimed_at <= stop <= noticed for stop, _ in self._stopped[run.pid])
        long = run.end - claimed_at >= HELD_UP_MIN * self._lease
        if job.threaded and (stopped or long or self._steps_between(claimed_at, noticed)):
            found.add("error")
        return found

    def _explained(self, claim: Claim) -> bool:
        """Whether what was done is why a claim was of no use.

        To its process; to the database, or the link to it, so that nobody was told of the claim, or
        too late; or to another process that held the lock, so that it came too late.
        """
        at = self._at(claim)
        signals = self._signals[claim.pid] + self._continues[claim.pid]
        if any(abs(signal.monotonic - at) <= SLACK_SECONDS for signal in signals):
            return True
        if any(abs(away - at) <= SLACK_SECONDS for away, _ in self._outages):
            return True
        # What was sent before the link was cut, or meanwhile, can arrive when it is mended, or as
        # long again after that: who sends waits twice as long each time.
        if any(
            cut <= at <= 2 * mend - cut + SLACK_SECONDS for cut, mend in self._cut_off[claim.pid]
        ):
            return True
        locked = self._locked(claim.job, at - SLACK_SECONDS, at)
        return claim.outcome == "missed" and any(locked)

    def check_due_times(self, row: Row) -> None:
        """Find claims nearer than the floor, and due times that would hide a late start."""
        job, runs = row.job, self._runs[row.job.name]
        for one, two in pairwise(self._claims(job.name)):
            gap, at = two.at - one.at, self._at(two)
            if self._steps_between(self._at(one), at):
                continue  # what it was due by is not what it was claimed by
            least = 0.0 if one.outcome == "interrupted" else job.floor
            if one.outcome in ("error", "timeout"):
                least = min(job.floor, job.retry)
            if gap < least - 1e-6:
                self._violation(at, f"{job.name}: two claims {gap:.6f} s apart")
            # After an overrun it counts from the end, as soon as that can be recorded; and after a
            # claim that its process could not use, from when that process was continued.
            ends = [run.end for run in runs if run.end <= at]
            ends += [e.monotonic for e in self._continues[one.pid] if e.monotonic <= at]
            # Or after an outage, when that could be recorded.
            ends += [it for away, it in self._outages if self._at(one) <= it and away <= at]
            latest = max([self._at(one), *ends]) + job.ceiling
            latest += max(self._locked(job.name, self._at(one), latest), default=0.0)
            due = self._due(two)
            if due is not None and (after := due - latest) > CLOCK_SECONDS:
                self._violation(at, f"{job.name}: due {after:.3f} s later than it can be")

    # What has happened

    @property
    def _window(self) -> tuple[float, float]:
        return self._evidence.since, self._evidence.until

    def _in_window(self, at: float) -> bool:
        return self._evidence.since <= at <= self._evidence.until

    def _violation(self, at: float | None, text: str) -> None:
        moment = "" if at is None else f", at second {at - self._evidence.since:.3f}"
        self.verdict.violations.append(text + moment)

    def _at(self, claim: Claim) -> float:
        return self._monotonic(claim.at)

    def _due(self, claim: Claim) -> float | None:
        """When it was due. None: the clock has been stepped since that was decided."""
        at = self._at(claim)
        since = max((it.monotonic for it in self._steps if it.monotonic <= at), default=-inf)
        due = claim.due - claim.at + at
        return due if due >= since else None

    def _monotonic(self, wall: float) -> float:
        """When the database's clock said so. No two readings of ours are as far apart as a step."""
        offset = self._offset
        since = min((event.monotonic for event in self._events), default=0.0) - SLACK_SECONDS
        for step in self._steps:
            at = wall - offset
            if since - CLOCK_SECONDS <= at <= step.monotonic + CLOCK_SECONDS:
                return at
            offset, since = offset + step.amount, step.monotonic
        return wall - offset

    def _offsets(self) -> list[float]:
        """How far the clocks were apart at each event, but for steps, in the order of events."""
        return [
            event.wall - event.monotonic - self._stepped(event)
            for event in self._events
            if event.what not in OF_SERVICE or event.pid not in self._own_clocks
        ]

    def _claims(self, name: str) -> list[Claim]:
        claims = [claim for claim in self._evidence.claims if claim.job == name]
        return sorted(claims, key=self._at)

    def _by_process(self, *kinds: str) -> dict[int, list[Event]]:
        found = defaultdict(list)
        for event in self._events:
            if event.what in kinds:
                found[event.pid].append(event)
        return found

    def _spans(self, begin: str, end: str) -> dict[int, list[tuple[float, float]]]:
        """From when to when each process was in that state. One that has not left it still is."""
        found = defaultdict(list)
        for pid, events in self._by_process(begin, end).items():
            for one, two in pairwise([*events, None]):
                assert one is not None
                if one.what == begin:
                    found[pid].append((one.monotonic, inf if two is None else two.monotonic))
        return found

    def _read_outages(self) -> list[tuple[float, float]]:
        """From when the database was away until when each process has tried again, in order."""
        away = [span for spans in self._spans("away", "back").values() for span in spans]
        away += [(it.monotonic, it.monotonic) for it in self._events if it.what == "disconnect"]
        return sorted(
            (since, until + min(until - since + REST_SECONDS, REST_SECONDS_MAX))
            for since, until in away
        )

    def _read_locks(self) -> tuple[Spans, Spans]:
        """From when to when a process that was held up can have had the lock for each job's writes.

        SQLite has one for all, Postgres one for each job, which its claims need. If anybody has
        written meanwhile, it was free. Postgres takes it from who is cut off, after a while.
        """
        stops = [span for spans in self._stopped.values() for span in spans]
        cuts = [span for spans in self._cut_off.values() for span in spans]
        by_stops, by_cuts = defaultdict(list), defaultdict(list)
        for job in {run.job for run in self._events if run.job}:
            commits = [
                self._monotonic(commit.at)
                for commit in self._evidence.commits
                if not self._evidence.postgres or (commit.job, commit.what) == (job, "claim")
            ]
            for stop, go in stops:
                if not any(stop + CLOCK_SECONDS < at < go - CLOCK_SECONDS for at in commits):
                    by_stops[job].append((stop, go))
            for cut, mend in cuts:
                until = max(cut + LOCK_SECONDS_MAX, 2 * mend - cut)
                first = min((at for at in commits if at > cut + CLOCK_SECONDS), default=inf)
                by_cuts[job].append((cut, min(until, first)))
        return by_stops, by_cuts

    def _steps_between(self, since: float, until: float) -> list[Event]:
        """Return the steps of the wall clock that all have."""
        return [step for step in self._steps if since <= step.monotonic <= until]

    def _stepped(self, event: Event) -> float:
        """By how much that clock was stepped at an event of a process that has it."""
        if event.what not in OF_SERVICE:
            return 0.0
        return sum(step.amount for step in self._steps if step.monotonic <= event.monotonic)

    def _read_runs(self) -> dict[str, list[Run]]:
        """Read the runs of each job, in the order of their starts."""
        ends = {event.body: event for event in self._events if event.what in ENDS}
        found = defaultdict(list)
        for start in (event for event in self._events if event.what == "start"):
            end, how, confirmed = inf, "never", 0
            if ended := ends.get(start.body):
                end, how, confirmed = ended.monotonic, ended.what, int(ended.amount)
            else:
                for signal in self._signals[start.pid]:
                    if signal.what == "kill" and signal.monotonic >= start.monotonic:
                        end, how = signal.monotonic, "killed"
                        break
            run = Run(start.job, start.pid, start.monotonic, end, how, start.body, confirmed)
            found[start.job].append(run)
        return found
