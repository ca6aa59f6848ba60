"""The rules for a job's row: who may change it, when, and into what."""

from .history import JobChanged, Row, RunChanged, Terms
from .ledger import CLOCK_ERROR, HOUR, PROMPT, RETRY, SECOND, TRUSTED, Job, Ledger, Life, Run


class RowRules(Ledger):
    """Judges each change of a row by what it was before."""

    def _job_changed(self, change: JobChanged) -> None:
        old, new = change.old, change.new
        row = new or old
        assert row is not None
        job = self._job(row.name)
        if job.row != old:
            self._broken("whole history", f"{old} was {job.row}", row.name)
        job.row = new
        offset = change.store_now - change.at
        if not self._offsets or self._offsets[-1][1] != offset:
            self._offsets.append((change.at, offset))
        if change.by == "operator":
            job.changed_by = ""  # what has been paused may be late
            return
        life = self._lives[change.by]
        terms = life.started.jobs.get(row.name)
        if terms is None:
            self._broken("unknown jobs stay", f"{change.by} has changed it", row.name)
            return
        if life.over is not None:
            self._broken("the dead do nothing", f"{change.by} has changed it", row.name)
        if new is None:
            self._broken("rows stay", f"{change.by} has deleted it", row.name)
        elif old is None:
            self._made(new, change, terms)
        elif new.run_no != old.run_no:
            self._claimed(job, old, new, change, life)
        elif new.owner != old.owner or old.owner is None:
            self._ended_or_clamped(job, old, new, change, terms)
        elif new.next_run_at != old.next_run_at:
            self._clamped(old, new, change, terms)
        else:
            self._renewed(job, old, new, change)
        if new is not None and (old is None or new.next_run_at != old.next_run_at):
            job.changed, job.changed_by, job.terms = change.at, change.by, terms

    def _made(self, new: Row, change: JobChanged, terms: Terms) -> None:
        wait = new.next_run_at - change.store_now
        longest = terms.period + terms.splay if terms.splay is not None else self._spread(terms)
        if new.run_no or not 0 <= wait <= longest:
            self._broken("new jobs run soon", f"first in {wait / SECOND} s", new.name)

    def _clamped(self, old: Row, new: Row, change: JobChanged, terms: Terms) -> None:
        """A due time that is later than the schedule can mean is brought back to that."""
        latest = change.store_now + round(terms.period * (1 + terms.jitter)) + (terms.splay or 0)
        if terms.splay is not None and new.next_run_at < change.store_now:
            self._broken("clamp", "moved to the past", new.name)
        if new.next_run_at > old.next_run_at or (
            terms.splay is None and abs(new.next_run_at - latest) > 2
        ):
            self._broken(
                "clamp", f"moved by {(new.next_run_at - old.next_run_at) / SECOND} s", new.name
            )

    def _unclamped(
        self, job: Job, before: Run | None, old: Row, change: JobChanged, life: Life
    ) -> None:
        """Who looks at a due time that is too late for the schedule brings it back."""
        terms = life.started.jobs[old.name]
        since = max(life.started.at, job.changed, *self._steps[-1:])
        if terms.splay is not None and before is not None:
            # A time of day that has had its run is not due again, though the clock was set back.
            since = max(since, change.at - (change.store_now - before.store_now))
        due = change.at - (change.store_now - old.next_run_at)
        longest = terms.period * (1 + terms.jitter) + (terms.splay or 0)
        over = due - since - longest - life.started.look_every - 10 * SECOND
        if over > 0 and not self._disturbed(change.by, since) and not terms.nightly:
            self._broken("clamp", f"it was due {over / SECOND} s too late", old.name)

    def _renewed(self, job: Job, old: Row, new: Row, change: JobChanged) -> None:
        run = job.runs[new.run_no]
        if old.owner != change.by:
            self._broken("an old run changes nothing", f"{change.by} renews", new.name)
        if old.lease_until is not None and old.lease_until <= change.store_now:
            self._broken("an expired lease stays so", f"{change.by} renews it", new.name)
        if new.requested_at != old.requested_at or new.paused != old.paused:
            self._broken("a request is one start", f"{change.by} has changed it", new.name)
        if new.lease_until != change.store_now + run.lease or new.failures != old.failures:
            self._broken("a renewal is for a lease", f"{change.by} makes it {new}", new.name)
        run.given_up |= change.at - run.leased > run.lease * TRUSTED - CLOCK_ERROR
        run.leased = change.at

    # Claims

    def _claimed(self, job: Job, old: Row, new: Row, change: JobChanged, life: Life) -> None:
        name, now, terms = new.name, change.store_now, life.started.jobs[new.name]
        requested = old.requested_at is not None or life.asked[name] > 0
        if new.run_no != old.run_no + 1:
            self._broken("contiguous", f"run {new.run_no} after {old.run_no}", name)
        if new.owner != change.by or new.lease_until != now + life.started.lease:
            self._broken("a claim is its owner's", f"{change.by} claims for {new.owner}", name)
        if new.failures != old.failures:
            self._broken("failures", f"a claim makes {new.failures} of {old.failures}", name)
        if old.paused and not requested:
            self._broken("paused", "it is claimed", name)
        if old.next_run_at > now and not requested:
            self._broken("due", f"claimed {(old.next_run_at - now) / SECOND} s too early", name)
        if requested and new.requested_at is not None:
            self._broken("a request is one start", "it is still there", name)
        if old.owner is not None and old.lease_until is not None:
            left, lease = old.lease_until - now, (old.lease_seconds or 0) * SECOND
            if 0 < left <= lease:
                self._broken("held", f"{old.owner} holds it for {left / SECOND} s", name)
        self._gap(new, terms, now)
        before = job.runs.get(old.run_no)
        if before is not None:
            self._floor(job, before, old, change, requested=requested)
        if not requested:
            self._fire_again(before, old, change, terms)
            self._unclamped(job, before, old, change, life)
            self._punctual(job, old, change)
            self._catch_up(old, change, before, terms, life)
        run = Run(change.at, change.by, old.next_run_at, requested, change.at, life.started.lease)
        run.store_now = now
        job.runs[new.run_no] = run

    def _gap(self, new: Row, terms: Terms, now: int) -> None:
        """The next due time is the claim's moment, and the gap that this run draws."""
        due = self._drawn(terms, f"{new.name}:{new.run_no}:gap", now)
        if terms.nightly and now < new.next_run_at <= now + terms.period + HOUR + (
            terms.splay or 0
        ):
            return
        if abs(new.next_run_at - due) > 2:
            wait = (new.next_run_at - now) / SECOND
            self._broken("gap", f"next in {wait} s, not {(due - now) / SECOND} s", new.name)

    def _floor(
        self, job: Job, before: Run, old: Row, change: JobChanged, *, requested: bool
    ) -> None:
        """Starts are never closer than the schedule says, but for what the contract names."""
        terms = self._lives[before.by].started.jobs[old.name]
        if terms.splay is not None or requested or before.outcome in ("error", "timeout"):
            return
        if before.outcome == "interrupted" or self._stepped(before.claimed):
            return
        if self._differs(old.name, terms, before.claimed):
            return
        gap = change.store_now - before.store_now
        if gap + 2 < terms.period * (1 - terms.jitter):
            self._broken("floor", f"{gap / SECOND} s after the last start", old.name)

    def _fire_again(self, before: Run | None, old: Row, change: JobChanged, terms: Terms) -> None:
        """A time of day has one run, also when the clock is set back to before it."""
        if terms.splay is None or before is None or before.requested:
            return
        if before.outcome not in ("ok", "abandoned") or terms.nightly:
            return
        if self._differs(old.name, terms, before.claimed):
            return
        back = self._set_back(before.claimed)
        if back < terms.period and before.due // terms.period == old.next_run_at // terms.period:
            self._broken("one run a fire", f"again, {back / SECOND} s set back", old.name)

    def _punctual(self, job: Job, old: Row, change: JobChanged) -> None:
        """With a healthy process that knows when it is due, it starts then."""
        knows, late = job.changed_by, change.store_now - old.next_run_at
        life = self._lives.get(knows)
        if life is None or life.over is not None or life.stopping is not None or late <= PROMPT:
            return
        if (
            old.owner is not None
            or self._disturbed(knows, job.changed)
            or _busy(job, knows, change.at - late)
        ):
            return
        self._broken("punctual", f"{knows} is healthy, it is {late / SECOND} s late", old.name)

    def _catch_up(
        self, old: Row, change: JobChanged, before: Run | None, terms: Terms, life: Life
    ) -> None:
        """What was due before the process has started waits for the draw of its run."""
        since = life.started.at
        overdue = change.store_now - old.next_run_at - (change.at - since)
        if overdue <= SECOND or (before and before.outcome in ("interrupted", "abandoned")):
            return
        if self._stepped(since) or terms.kind == "late" or old.paused:
            return
        wait = self._spread(terms) * self._draw(f"{old.name}:{old.run_no}:catch-up")
        if change.at - since < wait * 0.999 - PROMPT / 100:
            waited = (change.at - since) / SECOND
            text = f"begun {waited} s after the start of {change.by}, not {wait / SECOND} s"
            self._broken("catch-up is spread", text, old.name)

    # Ends

    def _ended_or_clamped(
        self, job: Job, old: Row, new: Row, change: JobChanged, terms: Terms
    ) -> None:
        if old.owner is None and new.owner is None:
            self._clamped(old, new, change, terms)
        elif new.owner is not None or old.owner != change.by:
            text = f"{change.by} has changed the owner from {old.owner} to {new.owner}"
            self._broken("an old run changes nothing", text, new.name)
        else:
            self._ended(job, old, new, change, terms)

    def _ended(self, job: Job, old: Row, new: Row, change: JobChanged, terms: Terms) -> None:
        """The run of the row's owner has ended: when is the next one due?"""
        run, name = job.runs[old.run_no], new.name
        if new.requested_at != old.requested_at:
            self._broken("a request is one start", "the end of a run has cleared it", name)
        if run.begun is not None and run.ended is None:
            self._broken("an end is the body's", "it is recorded, and the body goes on", name)
        elif run.begun is not None and run.torn is None:
            self._broken("torn down", f"run {old.run_no} has ended, its dependency has not", name)
        job.end = change
        if run.ended is None or self._disturbed(change.by, run.ended):
            return
        if (late := change.at - run.ended) > self._record_slack(change.by, run.ended):
            self._broken("ends are recorded", f"{late / SECOND} s late", name)

    def _due_after(self, end: JobChanged, change: RunChanged) -> None:
        """When the next run is due follows from how this one has ended."""
        old, new, now = end.old, end.new, end.store_now
        assert old is not None
        assert new is not None
        terms, due = self._lives[end.by].started.jobs[new.name], old.next_run_at
        counted = {"ok": 0, "error": old.failures + 1, "timeout": old.failures + 1}
        if new.failures != counted.get(change.new or "", old.failures):
            text = f"{change.new} makes {new.failures} of {old.failures}"
            self._broken("failures", text, new.name)
        if change.new == "interrupted":
            due = now
        elif change.new != "missed":
            if due <= now:
                due = self._drawn(terms, f"{new.name}:{new.run_no}:gap", now)
            if change.new != "ok":
                wait = min(terms.period, RETRY * 2 ** min(new.failures - 1, 30))
                chance = self._draw(f"{new.name}:{new.run_no}:retry")
                share = 1 - terms.jitter + 2 * terms.jitter * chance
                due = min(due, now + round(wait * share))
        if abs(new.next_run_at - due) > 2 and not terms.nightly:
            wrong = (new.next_run_at - due) / SECOND
            self._broken("due after an end", f"{change.new}: {wrong} s too late", new.name)

    def _record_slack(self, process: str, ended: int) -> int:
        """At a stop, what ends after the grace is recorded when all have cleaned up."""
        life = self._lives[process]
        if life.stopping is None or ended < life.stopping + life.started.grace - CLOCK_ERROR:
            return PROMPT
        return PROMPT + SECOND


def _busy(job: Job, process: str, due: int) -> bool:
    """Whether a body of the job was under way in the process when it was due."""
    return any(
        run.by == process and run.begun is not None and (run.ended is None or run.ended >= due)
        for run in job.runs.values()
    )
