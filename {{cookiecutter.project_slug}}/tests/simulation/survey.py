"""What a batch of seeds has met: faults beside kinds of jobs, and what should happen sometimes."""

from collections import Counter
from collections.abc import Iterable

from .history import (
    Body,
    Fault,
    JobChanged,
    Killed,
    Noted,
    Record,
    RunChanged,
    Started,
    Stopped,
    Stopping,
    Terms,
)
from .ledger import SECOND

SOMETIMES = (
    "lease lost while running",
    "takeover",
    "unknown commit that did commit",
    "stale write refused",
    "overrun",
    "catch-up",
    "cancellation swallowed",
    "claims within 1 ms",
    "clock back over a due time",
)

# These are done to a job, whether it runs or not. All else strikes the runs that are under way.
TO_A_JOB = ("pause", "request", "by hand", "interval")

# What each process runs for itself has no row: nothing of it can be changed there, or written.
IMPOSSIBLE = {(fault, "alone") for fault in ("pause", "request", "kill at statement")}

# When a body has ended, its process tries for about so long to record that.
RECORDING = 30 * SECOND


class Survey:
    """Counts over histories. Those of two can be added up."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """Seeds, seconds of virtual time of a job, runs."""
        self.faults: Counter[str] = Counter()
        self.sometimes: Counter[str] = Counter()
        self.pairs: Counter[tuple[str, str]] = Counter()
        """How often a fault has struck a kind of job."""

    def add(self, other: "Survey") -> None:
        """Count what another one has counted."""
        self.counts.update(other.counts)
        self.faults.update(other.faults)
        self.sometimes.update(other.sometimes)
        self.pairs.update(other.pairs)

    def read(self, history: Iterable[Record], end: int) -> None:
        """Count what has happened in a seed."""
        reader = _Reader(self)
        for record in history:
            reader.take(record)
        self.counts["seeds"] += 1
        self.counts["job-seconds"] += len(reader.jobs) * end // SECOND

    def missing(self, faults: Iterable[str], kinds: Iterable[str]) -> list[str]:
        """What was met less often than once in ten seeds. Under 300 seeds, chance decides that."""
        seeds, kinds = self.counts["seeds"], list(kinds)
        enough = seeds // 10 if seeds >= 300 else 0
        pairs = [
            f"{fault} x {kind}: {self.pairs[fault, kind]}"
            for fault in faults
            for kind in kinds
            if self.pairs[fault, kind] < enough and (fault, kind) not in IMPOSSIBLE
        ]
        return pairs + [
            f"{what}: {self.sometimes[what]}" for what in SOMETIMES if self.sometimes[what] < enough
        ]

    def table(self, faults: Iterable[str], kinds: Iterable[str]) -> str:
        """How often each fault has struck a run of each kind of job."""
        kinds = list(kinds)
        lines = [" " * 20 + "".join(f"{kind[:8]:>9}" for kind in kinds)]
        lines += [
            f"{fault:<20}" + "".join(f"{self.pairs[fault, kind]:>9}" for kind in kinds)
            for fault in faults
        ]
        return "\n".join(lines)


RunKey = tuple[str, str, int]
"""Process, job, number."""


class _Reader:
    def __init__(self, survey: Survey) -> None:
        self.jobs: set[str] = set()
        self._survey = survey
        self._lives: dict[str, Started] = {}
        self._stopping: set[str] = set()
        self._claimed: dict[RunKey, int] = {}
        """The runs that are under way."""
        self._torn: dict[RunKey, int] = {}
        self._starts: dict[str, int] = {}
        self._claim: JobChanged | None = None
        self._offset = 0

    def take(self, record: Record) -> None:
        """The next one."""
        match record:
            case Started():
                self._lives[record.process] = record
                self.jobs.update(record.jobs)
            case Stopping():
                self._stopping.add(record.process)
            case Killed() | Stopped():
                for key in [key for key in self._claimed if key[0] == record.process]:
                    del self._claimed[key]
            case Noted(what="refused"):
                self._some("stale write refused")
            case Noted(what="contested"):
                self._some("claims within 1 ms")
            case Fault():
                self._fault(record)
            case Body():
                self._body(record)
            case JobChanged():
                self._changed(record)
            case RunChanged(new=str(outcome)) if outcome != "abandoned":  # that ends no body
                self._claimed.pop((record.by, record.name, record.run_no), None)

    def _some(self, what: str) -> None:
        self._survey.sometimes[what] += 1

    def _terms(self, process: str, name: str) -> Terms:
        return self._lives[process].jobs[name]

    def _fault(self, fault: Fault) -> None:
        self._survey.faults[fault.kind] += 1
        struck = {
            self._terms(process, name).kind
            for process, name, run_no in self._claimed
            if fault.process in (None, process)
            and fault.at - self._torn.get((process, name, run_no), fault.at) < RECORDING
        }
        if fault.kind in TO_A_JOB:
            struck = {fault.target}
        self._survey.pairs.update((fault.kind, kind) for kind in struck)
        claim = self._claim
        if (
            fault.kind == "answer lost"
            and claim
            and (claim.at, claim.by) == (fault.at, fault.process)
        ):
            self._some("unknown commit that did commit")

    def _body(self, body: Body) -> None:
        key, terms = (body.process, body.name, body.run_no), self._terms(body.process, body.name)
        match body.what:
            case "begun" if terms.alone:
                self._claimed[key] = body.at
            case "torn down" if terms.alone:
                del self._claimed[key]
            case "torn down":
                self._torn[key] = body.at
            case "told":
                if body.detail == "swallowed":
                    self._some("cancellation swallowed")
                lasted = body.at - self._claimed[key]
                if body.process not in self._stopping and lasted < (terms.timeout or lasted + 1):
                    self._some("lease lost while running")

    def _changed(self, change: JobChanged) -> None:
        old, new = change.old, change.new
        if new is None:
            return
        offset = change.store_now - change.at
        if offset < self._offset and any(at > change.store_now for at in self._starts.values()):
            self._some("clock back over a due time")
        self._offset = offset
        if old is not None and new.run_no > old.run_no:
            self._survey.counts["runs"] += 1
            self._starts[new.name], self._claim = change.store_now, change
            self._claimed[change.by, new.name, new.run_no] = change.at
            if old.owner is not None:
                self._some("takeover")
            since = change.at - self._lives[change.by].at
            if change.store_now - old.next_run_at > since + SECOND:
                self._some("catch-up")
        elif old is not None and old.owner and not new.owner and old.next_run_at < change.store_now:
            self._some("overrun")
