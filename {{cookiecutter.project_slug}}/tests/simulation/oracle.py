"""The judge: it reads what has happened, in true time, and knows nothing of the app's code.

Each rule has a name, which a violation carries. What may excuse a rule stands in it.
"""

from collections.abc import Iterable
from math import inf

from .history import (
    Answered,
    Asked,
    Body,
    Effect,
    Fault,
    Healed,
    JobChanged,
    Killed,
    Noted,
    Problem,
    Record,
    RunChanged,
    Started,
    Stopped,
    Stopping,
    Terms,
)
from .ledger import (
    CATCH_UP,
    CLOCK_ERROR,
    DRIFT,
    HELD_UP,
    PROMPT,
    REST,
    SECOND,
    START_SLACK,
    STOP_SLACK,
    TRUSTED,
    Job,
    Life,
    Run,
    Violation,
)
from .own_rules import OwnRules
from .row_rules import RowRules


class Oracle(RowRules, OwnRules):
    """Reads the records in their order, and keeps the violations that it finds."""

    def judge(self, records: Iterable[Record], end: int) -> list[Violation]:
        """All violations in a history that was watched up to `end`."""
        for record in records:
            self._pass(record.at)
            match record:
                case Started():
                    self._lives[record.process] = Life(record)
                case Killed() | Stopped():
                    if isinstance(record, Stopped):
                        self._stopped(record)
                    self._own_missing(self._lives[record.process])
                    self._lives[record.process].over = record.at
                case Stopping():
                    self._own_missing(self._lives[record.process])
                    self._lives[record.process].stopping = record.at
                case Fault():
                    self._befalls(record)
                    if record.kind == "clock step" and record.process is None:
                        self._steps.append(record.at)
                case Healed():
                    self._healed = record.at
                case Problem():
                    self._broken("no complaint", record.text)
                case Body():
                    self._body(record)
                case Asked():
                    self._lives[record.process].asked[record.name] += 1
                case Answered():
                    self._answered(record)
                case Noted(what="in vain"):
                    self._in_vain(record)
                case Effect():
                    self._effect(record)
                case RunChanged():
                    self._run_changed(record)
                case JobChanged():
                    self._job_changed(record)
        self._pass(end)
        self._at_the_end()
        return self.violations

    def _pass(self, at: int) -> None:
        """Time passes. Who was asked for, and came as a lease ended, has got the run by now."""
        if at > self._now and self._comers:
            for name, (process, row) in self._comers.items():
                if self._job(name).row == row and not self._disturbed(process, self._now):
                    self._broken("over is over", f"{process} comes as a lease ends", name)
            self._comers.clear()
        self._now = at

    def _in_vain(self, note: Noted) -> None:
        """A process comes for nothing: perhaps for a lease that ends at this very moment."""
        life = self._lives.get(note.process)
        if life is None or not self._offsets:
            return
        if note.at - life.started.at < PROMPT:  # it has come to register its jobs
            return
        now = note.at + self._offsets[-1][1]
        for name in life.started.jobs:
            row = self._job(name).row
            if row is not None and row.requested_at is not None and row.lease_until == now:
                self._comers[name] = note.process, row

    # Runs and bodies

    def _run_changed(self, change: RunChanged) -> None:
        job = self._job(change.name)
        run = job.runs.get(change.run_no)
        if job.end is not None and job.end.at == change.at and change.new is not None:
            self._due_after(job.end, change)
            job.end = None
        if change.old is not None:
            self._broken("one outcome", f"{change.old} becomes {change.new}", change.name)
        if run is None:
            self._broken("a run has a claim", f"run {change.run_no} has none", change.name)
            return
        run.outcome = change.new
        if change.new not in (None, "abandoned"):
            self._fits(run, change)
        before = job.runs.get(change.run_no - 1)
        if change.new is None and before is not None and before.outcome is None:
            self._broken("abandoned", f"run {change.run_no - 1} has no end", change.name)

    def _fits(self, run: Run, change: RunChanged) -> None:
        """The outcome says how the body has ended: by itself, by its timeout, or by a stop."""
        life = self._lives[run.by]
        terms, ended = life.started.jobs[change.name], run.ended or change.at
        returned, disturbed = run.detail == "returned", self._disturbed(run.by, run.claimed)
        may = {"ok"} if returned else {"error"}
        if run.begun is None:
            may.add("missed")
        if not returned and life.stopping is not None and life.stopping <= ended:
            may.add("interrupted")
        if run.told is not None and not disturbed:  # nor has it lost its lease
            may.discard("error")
        if terms.threaded and disturbed:  # it has not heard that its lease is lost
            may.add("error")
        limit = terms.timeout or inf
        if change.at - run.claimed > limit * (1 - DRIFT) - CLOCK_ERROR:
            may.add("timeout")
        over = ended - (run.begun or ended) - limit * (1 + DRIFT) - CLOCK_ERROR
        if over > 0 and not self._disturbed(run.by, run.claimed, *HELD_UP):
            may -= {"ok", "interrupted"}
        if change.new not in may:
            text = f"run {change.run_no}, which has {run.detail or 'no body'}, is {change.new}"
            self._broken("the outcome is the body's", text, change.name)

    def _answered(self, answer: Answered) -> None:
        """Who is told how a run has ended finds that in its history."""
        life = self._lives[answer.process]
        life.asked[answer.name] -= 1
        if answer.run_no is None or life.started.jobs[answer.name].alone:
            return
        run = self._job(answer.name).runs.get(answer.run_no)
        if run is None or (run.by, run.outcome) != (answer.process, answer.outcome):
            text = f"run {answer.run_no} is told to be {answer.outcome}, it is {run}"
            self._broken("told as recorded", text, answer.name)

    def _effect(self, effect: Effect) -> None:
        job = self._job(effect.name)
        row = job.row
        if row is None or row.run_no != effect.run_no or row.owner != effect.by:
            text = f"run {effect.run_no} of {effect.by} has written, the row is {row}"
            self._broken("stale effects are refused", text, effect.name)

    def _body(self, body: Body) -> None:
        life = self._lives[body.process]
        terms = life.started.jobs[body.name]
        if terms.alone:
            self._own_body(life, body)
            return
        job = self._job(body.name)
        run = job.runs.get(body.run_no)
        if run is None or run.by != body.process:
            self._broken("a body has a claim", f"run {body.run_no} of {body.process}", body.name)
            return
        if body.what == "begun":
            self._begun(job, run, body, terms)
        elif body.what == "told":
            run.told = body.at
            self._trusted(run, body, terms)
            self._told_in_time(run, body, terms)
        elif body.what == "ended":
            run.ended, run.detail = body.at, body.detail
            self._trusted(run, body, terms)
        elif body.what == "torn down":
            if run.ended is None or run.torn is not None:
                self._broken("torn down", f"run {body.run_no}: too early, or again", body.name)
            run.torn = body.at

    def _begun(self, job: Job, run: Run, body: Body, terms: Terms) -> None:
        if run.begun is not None:
            self._broken("one body a claim", f"run {body.run_no} begins twice", body.name)
        run.begun = body.at
        waited = body.at - run.claimed
        if waited > run.lease * TRUSTED + CLOCK_ERROR:
            self._broken("trust", f"begun {waited / SECOND} s after the claim", body.name)
        elif waited > START_SLACK + CLOCK_ERROR and not self._disturbed(
            run.by, run.claimed, *HELD_UP
        ):
            self._broken("start slack", f"begun {waited / SECOND} s later", body.name)
        for number, other in job.runs.items():
            if number == body.run_no or other.begun is None or other.ended is not None:
                continue
            if other.by == run.by:
                self._broken("one body a process", f"run {number} goes on", body.name)
            elif not self._may_overlap(other):
                self._broken("no overlap", f"run {number} of {other.by} goes on", body.name)

    def _may_overlap(self, other: Run) -> bool:
        """A run whose process is gone, or could not renew its lease. (What it has told its body is
        no excuse: until the body has really ended, it keeps the lease.)"""
        gone = self._lives[other.by].over is not None or other.given_up
        return gone or self._stepped(other.claimed) or self._disturbed(other.by, other.leased)

    def _trusted(self, run: Run, body: Body, terms: Terms) -> None:
        """A body is told to end before its lease does. If it does not hear, it keeps the lease."""
        told = run.told is not None and run.told < body.at
        over = body.at - run.leased - run.lease * TRUSTED - CLOCK_ERROR
        if over <= (6 * SECOND if terms.threaded else 0) or (told and not terms.deaf):
            return
        if run.given_up and (told or terms.threaded):  # a thread may never look
            return
        if not self._disturbed(run.by, run.leased, *(() if told or terms.threaded else HELD_UP)):
            text = f"run {body.run_no} goes on {over / SECOND} s after its lease is not trusted"
            self._broken("trust", text, body.name)

    def _told_in_time(self, run: Run, body: Body, terms: Terms) -> None:
        """At a stop, a body that looks at nothing is left alone for the grace."""
        life = self._lives[body.process]
        if life.stopping is None or terms.threaded or terms.kind == "overruns":
            return
        early = life.stopping + life.started.grace - body.at
        assert run.begun is not None
        lasted = body.at - run.begun
        if early <= CLOCK_ERROR or (terms.timeout and lasted >= terms.timeout - CLOCK_ERROR):
            return
        if body.detail != "refused" and not self._disturbed(run.by, run.leased):
            self._broken("grace", f"cut short {early / SECOND} s too early", body.name)

    # Stops, and the end

    def _stopped(self, record: Stopped) -> None:
        life = self._lives[record.process]
        assert life.stopping is not None
        seconds = record.at - life.stopping - life.started.grace - STOP_SLACK
        if seconds > 0 and not self._disturbed(record.process, life.stopping, *HELD_UP):
            self._broken("stop is bounded", f"{record.process}: {seconds / SECOND} s over")
        bodies = False
        for name, job in self._jobs.items():
            for number, run in job.runs.items():
                if run.by != record.process or run.begun is None:
                    continue
                if run.ended is None:
                    bodies = True
                    terms = life.started.jobs[name]
                    if not terms.deaf and not terms.threaded:
                        text = f"run {number} goes on after the stop of {record.process}"
                        self._broken("stop ends bodies", text, name)
        if record.left and not bodies:
            self._broken("nothing is left", f"{record.process}: {', '.join(record.left)}")

    def _at_the_end(self) -> None:
        for life in self._lives.values():
            self._own_missing(life)
        for name, job in self._jobs.items():
            if self._healed is not None:
                self._lively(name, job)
            self._recorded(name, job)

    def _recorded(self, name: str, job: Job) -> None:
        """The end of each body of a healthy process is recorded."""
        for number, run in job.runs.items():
            if run.ended is None or run.outcome is not None or self._lives[run.by].over is not None:
                continue
            if self._now - run.ended > PROMPT and not self._disturbed(run.by, run.ended):
                self._broken("ends are recorded", f"that of run {number} is not", name)

    def _lively(self, name: str, job: Job) -> None:
        """After all faults, each job that somebody knows starts within its bound."""
        assert self._healed is not None
        core = [life for life in self._lives.values() if life.over is None]
        terms = [life.started.jobs[name] for life in core if name in life.started.jobs]
        if not terms or job.row is None or (job.row.paused and job.row.requested_at is None):
            return
        period = max(each.period * (1 + each.jitter) + (each.splay or 0) for each in terms)
        look = max(life.started.look_every for life in core)
        lease = max(life.started.lease for life in self._lives.values())
        bound = round(period) + look + CATCH_UP + lease + REST
        if terms[0].splay is not None:  # what has run before a clock was set back is not due again
            bound += min(self._set_back(0), 2 * terms[0].period)
        base = self._healed
        runs = sorted(job.runs.values(), key=lambda run: run.claimed)
        for run in [*runs, None]:
            start = self._now if run is None else run.claimed
            if start - base > bound:
                text = f"nothing from {base / SECOND} s for {(start - base) / SECOND} s"
                self._broken("healed jobs run", text, name)
            if run is None:
                return
            base = max(base, run.claimed)
            if run.begun is not None and self._lives[run.by].over is None:
                if run.ended is None:
                    return  # it still holds the job
                base = max(base, run.ended)
