"""The oracle of the chaos runs, put to records made by hand: what is wrong in them it must find."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tools.chaos.oracle import OUTCOMES, Job, Row, Verdict, judge, percentile
from tools.chaos.records import Claim, Commit, Event, Evidence, read_complaints
from tools.chaos.report import report, total

TIDY = Job("tidy", interval=10, jitter=0.3)
LEASE = 3
SECONDS = 100

# What the wall clock says when the monotonic one says 0.
EPOCH = 1_800_000_000


@dataclass(frozen=True)
class Body:
    """A body as it should be: it is claimed when due, begins at once, writes and ends."""

    start: float
    pid: int = 1
    took: float | None = 0.5
    """None: it has no end."""
    how: str = "end"
    late: float | None = None
    """How long it had been due. None: for as short as it can have been, but for 10 ms."""
    outcome: str | None = ""
    """What the history says of it. Empty: what it should."""
    claimed: bool = True
    begun: bool = True
    """False: there is only its claim."""
    answered: float = 0
    """How long before its start it was claimed."""
    writes: bool = True
    confirmed: int | None = None
    """How many of its writes it was told of. None: of one, if it ends well."""


def event(
    what: str, pid: int, at: float, job: str = "", body: str = "", amount: float = 0
) -> Event:
    """Make an event whose clocks agree."""
    return Event(what, pid, job, body, amount=amount, monotonic=at, wall=EPOCH + at)


def evidence(
    bodies: Sequence[Body], *events: Event, pids: Sequence[int] = (1, 2), job: Job = TIDY
) -> Evidence:
    """Record what the bodies and their processes do, and the events."""
    recorded = [event("up", pid, -1) for pid in pids] + list(events)
    commits, claims, latest = [], [], 0.0
    for run_no, body in enumerate(bodies, start=1):
        name, at = f"body {run_no}", EPOCH + body.start
        if body.begun:
            recorded.append(event("start", body.pid, body.start, job.name, name))
            if body.took is not None:
                end = body.start + body.took
                confirmed = body.how == "end" if body.confirmed is None else body.confirmed
                recorded.append(event(body.how, body.pid, end, job.name, name, confirmed))
        commits.append(Commit("claim", job.name, body.pid, run_no, at))
        if body.writes and body.begun:
            commits.append(Commit("write", job.name, body.pid, run_no, at, name))
        due = min(body.start - 0.01, latest + job.ceiling)
        if body.late is not None:
            due = body.start - body.late
        if body.claimed:
            due, at = due - body.answered, at - body.answered
            outcome = body.outcome
            if outcome == "":
                outcome = "abandoned" if body.took is None else OUTCOMES[body.how]
            claims.append(Claim(job.name, body.pid, EPOCH + due, at, outcome))
        latest = body.start + (body.took or 0) * body.begun
    return Evidence(recorded, commits, claims, since=0, until=SECONDS)


def regular(job: Job = TIDY) -> list[Body]:
    """Make a body each interval, of two processes in turn."""
    count = int(SECONDS / job.interval)
    return [Body(index * job.interval + 0.01, pid=1 + index % 2) for index in range(count)]


def after(*bodies: Body, job: Job = TIDY) -> list[Body]:
    """Put the bodies in the middle of a run between regular ones."""
    first, last = bodies[0].start - bodies[0].answered, bodies[-1].start
    rest = int((SECONDS - 1 - last) / job.interval)
    return [
        *(body for body in regular(job) if body.start < first - job.interval / 2),
        *bodies,
        *(Body(last + job.interval * index) for index in range(1, rest + 1)),
    ]


def verdict(found: Evidence, *, quiet: bool = True, processes: int = 2, job: Job = TIDY) -> Verdict:
    """Judge it."""
    return judge(found, [job], processes=processes, lease=LEASE, quiet=quiet)


def row(found: Evidence, *, quiet: bool = True, job: Job = TIDY) -> Row:
    """Judge it, and give what is found of the job."""
    return verdict(found, quiet=quiet, job=job).rows[0]


def violations(found: Evidence, *, quiet: bool = True, job: Job = TIDY) -> list[str]:
    """Judge it, and give what is wrong, without the moments."""
    return [text.split(", at ")[0] for text in verdict(found, quiet=quiet, job=job).violations]


def gaps(texts: Sequence[str]) -> list[str]:
    """Leave only what is wrong with gaps: a late start is also one with a delay."""
    return [text for text in texts if "gap" in text]


# A kill somewhere, so that a run is not quiet, and that explains nothing else.
ELSEWHERE = (event("up", 3, -1), event("kill", 3, 1), event("up", 4, 2))


# The database is away for 4 s.
AWAY = (event("away", 0, 55), event("back", 0, 59))


def disturbed(bodies: Sequence[Body], *events: Event, job: Job = TIDY) -> list[str]:
    """Judge a run that is not quiet, and give what is wrong."""
    found = evidence(bodies, *ELSEWHERE, *events, job=job)
    texts = judge(found, [job], processes=3, lease=LEASE, quiet=False).violations
    return [text.split(", at ")[0] for text in texts]


def test_a_clean_record_passes() -> None:
    """Ten runs, one for each due time, and nothing is wrong."""
    found = verdict(evidence(regular()))
    assert found.violations == []
    assert (found.rows[0].due_times, found.rows[0].claims, found.rows[0].runs) == (10, 10, 10)
    assert (found.rows[0].duplicates, found.rows[0].overlaps) == (0, 0)
    assert found.rows[0].gaps == pytest.approx([10] * 9)
    assert found.delays == pytest.approx([0.01] * 10)
    assert found.shares == {1: 5, 2: 5}


def test_a_clean_record_of_a_disturbed_run_passes() -> None:
    """What was done to a process that ran nothing changes nothing."""
    assert disturbed(regular()) == []


def test_no_record_at_all_fails() -> None:
    """Who sees nothing may not say that all is well."""
    found = violations(Evidence([], [], [], since=0, until=SECONDS))
    assert "tidy: it did not begin to run" in found
    assert "0 processes came up, not 2" in found


# Duplicates


@pytest.mark.parametrize(("part", "duplicates"), [(0.34, 1), (0.36, 0)])
def test_two_starts_nearer_than_a_part_of_the_interval_are_a_duplicate(
    part: float, duplicates: int
) -> None:
    """0.34 times the interval is too near, 0.36 is not."""
    found = row(evidence(after(Body(50), Body(50 + part * TIDY.interval, pid=2))))
    assert (found.duplicates, found.near) == (duplicates, 0)


def test_a_duplicate_is_a_violation() -> None:
    """It says which job, how near, and when."""
    found = verdict(evidence(after(Body(50), Body(51, pid=2)))).violations
    assert "tidy: two starts 1.000 s apart, at second 51.000" in found


def test_a_duplicate_in_the_same_process_is_found() -> None:
    """It matters little who does it twice."""
    assert row(evidence(after(Body(50), Body(51)))).duplicates == 1


def test_each_of_several_duplicates_counts() -> None:
    """Three starts for one due time are two too many."""
    assert row(evidence(after(Body(50), Body(51, pid=2), Body(52, pid=3)))).duplicates == 2


def test_a_duplicate_before_all_processes_are_up_is_found() -> None:
    """Safety holds from the first start on."""
    bodies = [Body(-8), Body(-7, pid=2), *regular()]
    assert row(evidence(bodies)).duplicates == 1


@pytest.mark.parametrize(("wait", "duplicates", "near"), [(3.51, 0, 1), (3.49, 1, 0)])
def test_a_retry_is_named_apart(wait: float, duplicates: int, near: int) -> None:
    """It comes 5 s less 30 % after an error's end at the earliest, here after 0.5 s."""
    hourly = Job("tidy", interval=60, jitter=0.3)
    bodies = [Body(0.01, how="error"), Body(0.51 + wait, pid=2)]
    found = verdict(evidence(bodies, job=hourly), job=hourly)
    assert (found.rows[0].duplicates, found.rows[0].near) == (duplicates, near)
    assert gaps(found.violations) == []


def test_the_start_after_a_cut_short_run_is_named_apart() -> None:
    """SIGTERM has cancelled a run, and another process begins it again at once."""
    cut_short = Body(50, how="cancelled", outcome="interrupted")
    bodies = after(cut_short, Body(50.5, pid=2))
    terminate, down = event("terminate", 1, 50.2), event("down", 1, 50.6)
    found = row(evidence(bodies, terminate, down), quiet=False)
    assert (found.duplicates, found.near) == (0, 1)
    assert disturbed(bodies, terminate, down) == []


@pytest.mark.parametrize(
    ("how", "what", "at", "again"),
    [
        ("cancelled", "terminate", 90.0, 50.6),  # by whom?
        ("cancelled", "stop", 50.2, 50.6),  # its lease was lost, not its process
        ("end", "terminate", 50.2, 50.6),  # it had done all that it had to
        ("cancelled", "terminate", 50.2, 50.4),  # it had not ended yet
    ],
)
def test_another_near_start_after_a_signal_is_a_duplicate(
    how: str, what: str, at: float, again: float
) -> None:
    """Only what SIGTERM has cut short is due at once, and only after its end."""
    bodies = after(Body(50, how=how, outcome="interrupted"), Body(again, pid=2))
    found = evidence(bodies, event(what, 1, at))
    assert row(found, quiet=False).duplicates == 1


# Overlaps


@pytest.mark.parametrize(("took", "overlaps"), [(9.001, 1), (9.0, 0)])
def test_an_overlap_of_a_millisecond_is_found(took: float, overlaps: int) -> None:
    """A run may begin when the one before ends, and no sooner."""
    found = row(evidence(after(Body(50, took=took), Body(59, pid=2))))
    assert (found.overlaps, found.duplicates) == (overlaps, 0)


def test_an_overlap_is_a_violation() -> None:
    """It says which job, and for how long."""
    found = violations(evidence(after(Body(50, took=9.001), Body(59, pid=2))))
    assert "tidy: two runs at once for 0.001 s" in found


def test_an_overlap_with_a_run_but_one_before_is_found() -> None:
    """A long run is compared with all that begin before it ends."""
    bodies = after(Body(50, took=15), Body(57, pid=2), Body(64, pid=2))
    assert row(evidence(bodies)).overlaps == 2


# A run of process 1 from 50 to 59.1 s, and one of process 2 that begins at 59 s.
OVERLAP = (Body(50, took=9.1), Body(59, pid=2))


def overlaps(
    bodies: Sequence[Body], pid: int, stop: float, go: float, *, locked: bool = False
) -> tuple[int, int]:
    """Stop a process, and count the overlaps, and those that this explains.

    Unless the database is `locked`, others write all the time.
    """
    signals = event("stop", pid, stop), event("continue", pid, go)
    found = evidence(after(*bodies), *ELSEWHERE, *signals)
    if not locked:
        others = [Commit("claim", "other", 4, 1, EPOCH + at / 10) for at in range(10 * SECONDS)]
        found.commits.extend(others)
    rows = judge(found, [TIDY], processes=3, lease=LEASE, quiet=False).rows
    return rows[0].overlaps, rows[0].overlaps_stopped


@pytest.mark.parametrize(("stop", "explained"), [(51, 1), (57, 1), (57.1, 0), (59.01, 0)])
def test_a_stop_explains_an_overlap_if_the_lease_can_have_ended_since(
    stop: float, explained: int
) -> None:
    """Renewed 1 s before the stop at the latest, it ends 2 s after it, and then another begins."""
    assert overlaps(OVERLAP, 1, stop, stop + 4.5) == (1 - explained, explained)


@pytest.mark.parametrize(("go", "explained"), [(52.5, 1), (52.4, 0)])
def test_a_stop_too_short_for_the_lease_to_be_given_up_explains_no_overlap(
    go: float, explained: int
) -> None:
    """Renewed 1 s before the stop, it is trusted for 2.5 s; until then it is renewed at once."""
    assert overlaps(OVERLAP, 1, 51, go) == (1 - explained, explained)


@pytest.mark.parametrize(
    ("stop", "go", "explained"),
    [
        (45, 49.9, 0),  # it was over
        (45, 51.4, 0),  # only what is left of it counts
        (49.999, 54.5, 1),  # recorded before it is sent, so a start can come between
        (60, 64.5, 0),  # it came after
    ],
)
def test_a_stop_explains_an_overlap_only_with_a_run_that_it_held_up(
    stop: float, go: float, explained: int
) -> None:
    """The lease is as new as the run's start."""
    assert overlaps(OVERLAP, 1, stop, go) == (1 - explained, explained)


@pytest.mark.parametrize(("pid", "stop"), [(2, 54.51), (2, 59.01), (3, 54.51)])
def test_a_stop_of_another_process_explains_no_overlap(pid: int, stop: float) -> None:
    """Neither the second run's nor a third one keeps the lease of the first from being renewed."""
    assert overlaps(OVERLAP, pid, stop, stop + 4.5) == (1, 0)


@pytest.mark.parametrize(("stop", "go", "explained"), [(54.4, 58.9, 1), (57.5, 58.9, 0)])
def test_a_stopped_process_with_the_write_lock_explains_an_overlap(
    stop: float, go: float, explained: int
) -> None:
    """Whoever it is: nobody can renew a lease meanwhile, and a thread cannot be cancelled."""
    assert overlaps(OVERLAP, 3, stop, go, locked=True) == (1 - explained, explained)


def test_a_body_that_begins_late_overlaps_though_its_process_was_stopped() -> None:
    """Frozen for longer than its lease, it lets another claim the job, and may not begin then."""
    late = Body(54.5, pid=2, answered=4.5, late=0.01)
    assert overlaps([late, Body(53.1, took=3, late=0.01)], 2, 50.001, 54.501) == (1, 0)


def test_a_killed_run_ends_with_its_process() -> None:
    """What comes after overlaps with nothing."""
    bodies = after(Body(50, took=None, writes=False), Body(62, pid=2))
    assert disturbed(bodies, event("kill", 1, 51)) == []


@pytest.mark.parametrize(("what", "at"), [("stop", 51), ("terminate", 51), ("kill", 49)])
def test_a_run_without_an_end_is_a_violation(what: str, at: float) -> None:
    """Only who is killed cannot say how it ends."""
    found = disturbed(after(Body(50, took=None)), event(what, 1, at))
    assert "tidy: a run that never ended" in found


# Gaps of quiet runs


@pytest.mark.parametrize(
    ("gap", "wrong"),
    [
        (6.81, []),
        (6.79, ["tidy: a gap of 6.790 s, not 7.000 s"]),
        (13.99, []),
        (14.01, ["tidy: a gap of 14.010 s, not 14.000 s"]),
    ],
)
def test_a_quiet_gap_is_within_the_jitter(gap: float, wrong: list[str]) -> None:
    """From 0.2 s less than 7 s to 1 s more than 13 s."""
    assert gaps(violations(evidence(after(Body(50), Body(50 + gap, pid=2))))) == wrong


@pytest.mark.parametrize(("gap", "ok"), [(4.79, False), (4.81, True), (5.99, True), (6.01, False)])
def test_without_jitter_a_quiet_gap_is_the_interval(gap: float, ok: bool) -> None:
    """Every gap of a job each five seconds is 5 s, less 0.2 s or 1 s more at most."""
    steady = Job("tidy", interval=5, jitter=0)
    bodies = [body for body in regular(steady) if body.start < 50]
    shifted = [replace(body, start=body.start + gap - 5) for body in regular(steady)[10:]]
    found = violations(evidence([*bodies, *shifted], job=steady), job=steady)
    assert (gaps(found) == []) == ok


def test_a_run_that_outlives_its_slot_is_followed_by_a_gap() -> None:
    """The ceiling counts from its end."""
    assert gaps(violations(evidence(after(Body(40, took=15), Body(68.9, pid=2))))) == []
    found = violations(evidence(after(Body(40, took=15), Body(69.1, pid=2))))
    assert gaps(found) == ["tidy: a gap of 29.100 s, not 29.000 s"]


def test_a_job_that_never_runs_is_found() -> None:
    """However well the others do."""
    assert "tidy: it did not begin to run" in violations(evidence([]))


@pytest.mark.parametrize(("first", "ok"), [(14.9, True), (15.1, False)])
def test_a_job_that_begins_late_is_found(first: float, ok: bool) -> None:
    """The first start comes 13 s after all are up at the latest, and 2 s for the machine."""
    found = violations(evidence([Body(first + 10 * index) for index in range(9)]))
    assert ("tidy: it did not begin to run" not in found) == ok


def test_a_job_that_ceases_to_run_is_found() -> None:
    """The last gap has no end, and is too long all the same."""
    ceased = [body for body in regular() if body.start < 80]
    assert violations(evidence(ceased)) == ["tidy: no run for 29.990 s"]


# Gaps of disturbed runs


@pytest.mark.parametrize(("again", "ok"), [(67.9, True), (68.1, False)])
def test_without_a_signal_to_its_process_a_gap_has_its_ceiling(again: float, ok: bool) -> None:
    """13 s, a catch-up delay of up to 3 s, and 2 s for the machine."""
    assert (disturbed(after(Body(50), Body(again, pid=2))) == []) == ok


@pytest.mark.parametrize(("again", "ok"), [(69.9, True), (70.1, False)])
def test_after_a_kill_the_lease_ends_first(again: float, ok: bool) -> None:
    """Renewed just before the kill at 62 s, it ends at 65 s; 3 s of catch-up delay and 2 s."""
    bodies = after(Body(50, took=None, writes=False), Body(again, pid=2))
    assert (disturbed(bodies, event("kill", 1, 62)) == []) == ok


@pytest.mark.parametrize(("again", "ok"), [(67.9, True), (68.1, False)])
def test_an_earlier_kill_does_not_move_the_ceiling(again: float, ok: bool) -> None:
    """The lease has long ended when the job is due."""
    bodies = after(Body(50, took=None, writes=False), Body(again, pid=2))
    assert (disturbed(bodies, event("kill", 1, 51)) == []) == ok


@pytest.mark.parametrize("what", ["kill", "stop"])
@pytest.mark.parametrize(("lost_at", "ok"), [(52.4, True), (52.6, False)])
def test_a_process_lost_long_after_a_run_had_ended_holds_nothing_up(
    what: str, lost_at: float, ok: bool
) -> None:
    """What ended at 50.5 s is recorded 2 s later at the latest, and then no lease has to end."""
    often = Job("tidy", interval=2, jitter=0.3)
    bodies = after(Body(50), Body(55.5, pid=2), job=often)
    signals = [event(what, 1, lost_at), event("continue", 1, lost_at + 0.01)]
    assert (gaps(disturbed(bodies, *signals, job=often)) == []) == ok


@pytest.mark.parametrize(("again", "ok"), [(81.9, True), (82.1, False)])
def test_what_sigterm_cut_short_is_seen_at_the_next_look(again: float, ok: bool) -> None:
    """15 s after the process has ended, at 62 s, and then 3 s of catch-up delay and 2 s."""
    bodies = after(Body(50, took=6, how="cancelled", outcome="interrupted"), Body(again, pid=2))
    signals = event("terminate", 1, 55), event("down", 1, 62), event("down", 3, 70)
    assert (disturbed(bodies, *signals) == []) == ok


@pytest.mark.parametrize(("again", "ok"), [(69.9, True), (70.1, False)])
def test_what_ended_by_itself_is_not_waited_for(again: float, ok: bool) -> None:
    """SIGTERM has cut nothing short: only the lease counts, from the process's end at 62 s."""
    bodies = after(Body(50, took=6), Body(again, pid=2))
    signals = event("terminate", 1, 55), event("down", 1, 62)
    assert (disturbed(bodies, *signals) == []) == ok


@pytest.mark.parametrize("what", ["kill", "terminate"])
def test_a_process_lost_after_an_overrun_had_ended_changes_nothing(what: str) -> None:
    """The job is due a gap after that run's end, as recorded."""
    bodies = after(Body(50, took=12), Body(76, pid=2))
    assert disturbed(bodies, event(what, 1, 62.5)) == []


@pytest.mark.parametrize(("again", "ok"), [(72.4, True), (72.6, False)])
def test_a_stopped_process_may_hold_the_write_lock(again: float, ok: bool) -> None:
    """Nobody else has written during the 4.5 s that it was stopped."""
    bodies = after(Body(50), Body(again, pid=2))
    signals = event("stop", 3, 60), event("continue", 3, 64.5)
    assert (disturbed(bodies, *signals) == []) == ok


@pytest.mark.parametrize(("again", "ok"), [(85.4, True), (85.6, False)])
def test_two_stopped_processes_can_hold_up_a_job_for_a_gap_more(again: float, ok: bool) -> None:
    """One holds the write lock; the other, continued, records first that its run has ended."""
    bodies = after(Body(50, took=4.2), Body(again, pid=2))
    one = event("stop", 1, 50.1), event("continue", 1, 54.1)
    other = event("stop", 3, 52), event("continue", 3, 56.5)
    assert (gaps(disturbed(bodies, *one, *other)) == []) == ok


@pytest.mark.parametrize("stopped_at", [30, 70])
def test_a_process_that_was_stopped_at_another_time_holds_nothing_up(stopped_at: float) -> None:
    """Before the gap, or when it was over."""
    bodies = after(Body(50), Body(68.4, pid=2))
    signals = event("stop", 3, stopped_at), event("continue", 3, stopped_at + 4.5)
    assert disturbed(bodies, *signals) == ["tidy: a gap of 18.400 s, not 18.000 s"]


@pytest.mark.parametrize(("at", "locked"), [(62, False), (60.01, True), (64.49, True)])
def test_a_stopped_process_that_lets_others_write_holds_no_lock(at: float, locked: bool) -> None:
    """A single row shows it, if it comes clearly between the stop and the end of it."""
    found = evidence(
        after(Body(50), Body(72.4, pid=2)),
        *ELSEWHERE,
        event("stop", 3, 60),
        event("continue", 3, 64.5),
    )
    found.commits.append(Commit("claim", "other", 2, 1, EPOCH + at))
    wrong = judge(found, [TIDY], processes=3, lease=LEASE, quiet=False).violations
    gap = "tidy: a gap of 22.400 s, not 18.000 s, at second 72.400"
    assert wrong == ([] if locked else [gap])


def test_the_latest_start_is_the_one_nearest_to_its_bound() -> None:
    """Counted from the ceiling, as its bound is."""
    bodies = after(Body(50, took=None, writes=False), Body(66.5, pid=2))
    found = evidence(bodies, event("kill", 1, 62))
    latest = row(found, quiet=False).latest
    assert latest is not None
    assert (latest.seconds, latest.bound) == pytest.approx((3.5, 7))


# Claims


def test_a_claim_that_nobody_has_run_is_a_violation() -> None:
    """Its due time is lost, and no signal to its process explains that."""
    lost = Body(50, begun=False, outcome="abandoned")
    assert disturbed(after(lost, Body(57.5, pid=2))) == [
        "tidy: a claim (abandoned) that nobody has run"
    ]


@pytest.mark.parametrize(("again", "ok"), [(83.9, True), (84.1, False)])
def test_a_claim_of_a_terminated_process_is_seen_at_the_next_look(again: float, ok: bool) -> None:
    """It was cut short before the body had begun: 15 s after the end at 64 s, and 5 s."""
    lost = Body(62, begun=False, outcome="interrupted")
    signals = event("terminate", 1, 61), event("down", 1, 64)
    assert (disturbed(after(Body(50), lost, Body(again, pid=2)), *signals) == []) == ok


def test_a_claim_that_waited_too_long_for_a_stopped_process_is_missed() -> None:
    """That one held the write lock, and the claim was answered too late to be used."""
    missed = Body(60, pid=2, begun=False, outcome="missed")
    bodies = after(Body(50), missed, Body(67.5))
    stop, go = event("stop", 3, 55.4), event("continue", 3, 59.9)
    assert disturbed(bodies, stop, go) == []
    found = evidence(bodies, *ELSEWHERE, stop, go)
    found.commits.append(Commit("claim", "other", 2, 1, EPOCH + 57))
    wrong = judge(found, [TIDY], processes=3, lease=LEASE, quiet=False).violations
    assert wrong == ["tidy: a claim (missed) that nobody has run, at second 60.000"]
    abandoned = after(Body(50), replace(missed, outcome="abandoned"), Body(67.5))
    assert disturbed(abandoned, stop, go) == ["tidy: a claim (abandoned) that nobody has run"]


def test_a_claim_of_a_process_that_has_just_been_continued_is_missed() -> None:
    """It had wanted to claim before it was stopped, and its lease may have ended since."""
    missed = Body(60, pid=2, begun=False, outcome="missed")
    stop, go = event("stop", 2, 55.4), event("continue", 2, 59.9)
    found = evidence(after(Body(50), missed, Body(70)), *ELSEWHERE, stop, go)
    found.commits.append(Commit("claim", "other", 1, 1, EPOCH + 57))
    assert judge(found, [TIDY], processes=3, lease=LEASE, quiet=False).violations == []


def test_a_claim_whose_process_was_killed_explains_a_gap() -> None:
    """It was made, and then there was nobody to run it."""
    lost = Body(62, begun=False, outcome="abandoned")
    bodies = after(Body(50), lost, Body(78, pid=2))
    assert disturbed(bodies, event("kill", 1, 62.1)) == []


def test_a_claim_that_was_lost_long_ago_explains_nothing() -> None:
    """From it on the job had its ceiling like after a run."""
    lost = Body(62, begun=False, outcome="abandoned")
    bodies = after(Body(50), lost, Body(80.1, pid=2))
    [wrong] = disturbed(bodies, event("kill", 1, 62.1))
    assert wrong == "tidy: a gap of 18.100 s, not 18.000 s"


def test_a_run_without_a_claim_is_a_violation() -> None:
    """Nobody gave it the right to run."""
    found = violations(evidence(after(Body(50, claimed=False))))
    assert found == ["tidy: a run that nobody has claimed"]


@pytest.mark.parametrize(("answered", "wrong"), [(0.99, False), (1.1, True)])
def test_a_body_begins_within_a_second_of_its_claim(answered: float, wrong: bool) -> None:
    """Or not at all: its process may have been stopped in between, and the lease have ended."""
    found = violations(evidence(after(Body(50, answered=answered))))
    assert ("tidy: a body began 1.100 s after its claim" in found) == wrong


def test_a_body_that_begins_long_after_its_claim_is_the_only_thing_wrong() -> None:
    """Its process was stopped in between. The gaps before and after count from the claim."""
    bodies = after(Body(59, answered=6.1, pid=2), Body(69))
    stop, go = event("stop", 2, 53), event("continue", 2, 58.9)
    found = evidence(bodies, *ELSEWHERE, stop, go)
    found.commits.append(Commit("claim", "other", 1, 1, EPOCH + 55))
    [wrong] = judge(found, [TIDY], processes=3, lease=LEASE, quiet=False).violations
    assert "tidy: a body began 6.100 s after its claim" in wrong


def test_a_claim_of_another_process_is_not_the_runs_own() -> None:
    """The claim names the process."""
    found = evidence(regular())
    found.claims[5] = replace(found.claims[5], pid=1)
    assert "tidy: a run that nobody has claimed" in violations(found)


@pytest.mark.parametrize(
    ("outcome", "gap", "ok"),
    [
        ("ok", 6.999, False),
        ("ok", 7.0, True),
        ("abandoned", 6.999, False),
        ("missed", 6.999, False),
        ("error", 3.499, False),
        ("error", 3.5, True),
        ("timeout", 3.499, False),
        ("interrupted", 0.1, True),
    ],
)
def test_claims_keep_the_floor(outcome: str, gap: float, ok: bool) -> None:
    """To the millisecond; after an error that of a retry, and none after a cut-short run."""
    found = evidence(after(Body(50, outcome=outcome), Body(50 + gap, pid=2, late=0.0)))
    assert ("tidy: two claims" not in str(violations(found))) == ok


def test_a_due_time_that_hides_a_late_start_is_a_violation() -> None:
    """Due 13.7 s after a start, or 13.2 s after its end: no schedule has said so."""
    found = violations(evidence(after(Body(50), Body(63.8, pid=2, late=0.1))))
    assert found == ["tidy: due 0.200 s later than it can be"]


def test_a_due_time_may_count_from_when_a_process_was_continued() -> None:
    """It could not use its claim, and said so before another one claimed the job."""
    lost = Body(60, pid=2, begun=False, outcome="error")
    bodies = after(Body(50), lost, Body(77.4, late=0.01))
    stop, go = event("stop", 2, 60.001), event("continue", 2, 64.5)
    assert disturbed(bodies, stop, go) == []


def test_a_due_time_that_is_claimed_twice_is_one_due_time() -> None:
    """Claims are counted as they come, due times as they differ, both within the run's time."""
    found = evidence([Body(-8, late=0), *regular()])
    found.claims[6] = replace(found.claims[6], due=found.claims[5].due)
    assert (row(found).due_times, row(found).claims) == (9, 10)


# How a run ended

THREAD = replace(TIDY, threaded=True)

TERMINATED = (event("terminate", 1, 50.2), event("down", 1, 51))

FROZEN = (event("stop", 1, 50.49), event("continue", 1, 54.99))


def told(body: Body, *events: Event, job: Job = TIDY) -> list[str]:
    """Judge a run with that body, and give what is wrong with what the history says of it."""
    texts = disturbed(after(body, Body(62, pid=2), job=job), *events, job=job)
    return [text for text in texts if "the history says" in text]


@pytest.mark.parametrize(
    ("how", "outcome", "ok"),
    [
        ("end", "ok", True),
        ("end", "error", False),  # the next run could come sooner than the floor
        ("end", "timeout", False),
        ("end", "interrupted", False),  # and then at once
        ("end", "missed", False),
        ("error", "error", True),
        ("error", "ok", False),  # nobody would hear of it
        ("error", "interrupted", False),
        ("cancelled", "error", True),  # its lease was lost
        ("cancelled", "ok", False),
        ("cancelled", "interrupted", False),  # by whom?
        ("refused", "error", True),
        ("refused", "ok", False),
    ],
)
def test_the_history_says_what_the_body_says(how: str, outcome: str, ok: bool) -> None:
    """Its word may let the next run come sooner, or hide an error."""
    assert (told(Body(50, how=how, outcome=outcome)) == []) == ok


def test_a_wrong_word_of_the_history_is_a_violation() -> None:
    """It says how the body ended, what the history makes of it, and when."""
    found = verdict(evidence(after(Body(50, how="error", outcome="ok")))).violations
    words = "tidy: a body ended (error), and the history says ok, at second 50.000"
    assert words in found


@pytest.mark.parametrize("how", ["end", "error", "cancelled", "refused"])
@pytest.mark.parametrize("outcome", [None, "abandoned"])
def test_an_end_need_not_be_recorded_where_something_is_done(how: str, outcome: str | None) -> None:
    """The database was away, say. In a quiet run nothing can keep it from that."""
    body = Body(50, how=how, outcome=outcome)
    assert told(body) == []
    assert "the history says" in str(violations(evidence(after(body))))


@pytest.mark.parametrize("outcome", ["ok", "error", "interrupted"])
def test_nobody_records_the_end_of_a_killed_run(outcome: str) -> None:
    """Its process was gone, and no other one knows."""
    kill = event("kill", 1, 51)
    assert told(Body(50, took=None, outcome=outcome, writes=False), kill) != []


@pytest.mark.parametrize(
    ("how", "outcome", "ok"),
    [
        ("cancelled", "interrupted", True),
        ("error", "interrupted", True),
        ("end", "interrupted", False),  # it has done all
        ("error", "ok", False),
    ],
)
@pytest.mark.parametrize("job", [TIDY, THREAD])
def test_sigterm_interrupts_what_does_not_end_well(
    how: str, outcome: str, ok: bool, job: Job
) -> None:
    """A thread that returns though it is told to stop has not looked, and is done."""
    assert (told(Body(50, how=how, outcome=outcome), *TERMINATED, job=job) == []) == ok


@pytest.mark.parametrize(
    ("took", "events", "job", "ok"),
    [
        (0.5, FROZEN, THREAD, True),  # it had ended, and its process had not noticed yet
        (0.5, FROZEN, TIDY, False),  # its process ends it, and is not frozen between
        (0.5, TERMINATED, THREAD, False),  # that ends no lease
        (0.5, (event("stop", 2, 50.49), event("continue", 2, 54.99)), THREAD, False),
        (1.6, (), THREAD, True),  # it waited for the database
        (1.4, (), THREAD, False),
    ],
)
def test_a_thread_that_ends_well_can_have_lost_its_lease(
    took: float, events: Sequence[Event], job: Job, ok: bool
) -> None:
    """Nobody could tell it in time. That is an error, and nothing else."""
    assert (told(Body(50, took=took, outcome="error"), *events, job=job) == []) == ok
    assert told(Body(50, took=took, outcome="timeout"), *events, job=job) != []


# Writes


def test_a_write_after_the_next_claim_is_stale() -> None:
    """Another process has claimed the job between."""
    found = evidence(regular())
    late = found.commits.pop(5)
    found.commits.insert(6, late)
    assert late.what == "write"
    assert violations(found) == ["tidy: a stale write"]


def test_a_write_after_a_claim_of_the_same_process_is_stale() -> None:
    """It is a later run of its own, and its number tells."""
    found = evidence([replace(body, pid=1) for body in regular()], pids=(1,))
    found.commits.insert(6, found.commits.pop(5))
    wrong = judge(found, [TIDY], processes=1, lease=LEASE, quiet=True)
    assert wrong.stale_writes == 1


def test_a_write_after_that_of_a_later_body_is_stale_whatever_its_number() -> None:
    """The engine has given two runs the same number, and the second one has written."""
    found = evidence([replace(body, pid=1) for body in regular()], pids=(1,))
    found.commits[:] = [replace(commit, run_no=1) for commit in found.commits]
    found.commits[3], found.commits[1] = found.commits[1], found.commits[3]
    wrong = judge(found, [TIDY], processes=1, lease=LEASE, quiet=True)
    assert wrong.stale_writes == 1


def test_a_write_of_no_known_body_is_stale() -> None:
    """Nobody knows who has written it."""
    found = evidence(regular())
    found.commits.append(replace(found.commits[-1], body="unheard of"))
    assert violations(found) == ["tidy: a stale write"]


def test_several_writes_of_a_run_are_its_own() -> None:
    """It may write as long as nobody has claimed the job after it."""
    found = evidence(regular())
    found.commits.insert(6, found.commits[5])
    assert violations(found) == []


def test_a_write_that_is_not_there_is_a_violation() -> None:
    """The body has ended well, so it was told that its write was committed."""
    found = violations(evidence(after(Body(50, writes=False))))
    assert found == ["tidy: what a run has written is not there"]


@pytest.mark.parametrize("how", ["end", "error", "cancelled", "refused"])
@pytest.mark.parametrize(("confirmed", "lost"), [(1, 0), (2, 1)])
def test_as_many_writes_are_there_as_a_body_was_told_of(
    how: str, confirmed: int, lost: int
) -> None:
    """However it ended: the database may not forget one, whatever is done to it."""
    found = judged(evidence(after(Body(50, how=how, confirmed=confirmed)), *ELSEWHERE, *AWAY))
    assert (found.lost, found.stale_writes) == (lost, 0)
    assert ("tidy: what a run has written is not there" in str(found.violations)) == bool(lost)


def test_a_refused_write_is_counted() -> None:
    """It is what the fence is for, and no violation."""
    found = verdict(evidence(after(Body(50, how="refused", writes=False))))
    assert (found.ends["refused"], found.violations) == (1, [])


# Delays and shares


@pytest.mark.parametrize(("late", "wrong"), [(0.199, 0), (0.2, 1)])
def test_the_p99_of_quiet_delays_has_a_bound(late: float, wrong: int) -> None:
    """Of ten starts, one that is 200 ms late is too many."""
    assert len(violations(evidence(after(Body(50, late=late))))) == wrong


def test_one_late_start_of_a_hundred_is_allowed() -> None:
    """It is a p99, not a maximum."""
    often = Job("tidy", interval=1, jitter=0.3)
    bodies = regular(often)
    bodies[50] = replace(bodies[50], late=0.5)
    assert violations(evidence(bodies, job=often), job=often) == []
    bodies[60] = replace(bodies[60], late=0.5)
    found = violations(evidence(bodies, job=often), job=often)
    assert found == ["the start delay has a p99 of 500 ms"]


def test_delays_of_a_disturbed_run_are_not_judged() -> None:
    """There each start has its bound."""
    assert disturbed(after(Body(50, late=2.0))) == []


def test_percentiles_are_values_that_occurred() -> None:
    """The smallest that so many do not exceed."""
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, part) for part in (0, 0.5, 0.99, 1)] == [1, 50, 99, 100]


@pytest.mark.parametrize(("runs", "wrong"), [(5, 0), (4, 1), (0, 1)])
def test_each_process_has_a_tenth_of_an_even_share(runs: int, wrong: int) -> None:
    """Of a hundred runs by two processes, five."""
    often = Job("tidy", interval=1, jitter=0.3)
    bodies = [
        replace(body, pid=2 if index < runs else 1) for index, body in enumerate(regular(often))
    ]
    found = violations(evidence(bodies, job=often), job=often)
    assert found == [f"process 2 began {runs} runs, not 5.0"] * wrong


def test_shares_of_a_short_run_are_not_judged() -> None:
    """Of ten runs, chance can give all to one process."""
    found = verdict(evidence([replace(body, pid=1) for body in regular()]))
    assert (found.shares, found.violations) == ({1: 10, 2: 0}, [])


@pytest.mark.parametrize(
    ("second", "wrong"),
    [
        (Body(56.8, pid=2, late=0.0), []),
        (Body(64.9, pid=2), []),
        (Body(65.1, pid=2), ["tidy: a gap of 15.100 s, not 15.000 s"]),
    ],
)
def test_on_a_busy_machine_little_delays_say_nothing(second: Body, wrong: list[str]) -> None:
    """Of the start delay there is no p99 then, and a quiet gap has two seconds."""
    bodies = after(Body(50, late=0.5), second)
    found = judge(evidence(bodies), [TIDY], processes=2, lease=LEASE, quiet=True, busy=True)
    assert gaps([text.split(", at ")[0] for text in found.violations]) == wrong
    assert "p99" not in str(found.violations)


def test_the_catch_up_delay_has_a_limit() -> None:
    """10 s, however long the interval and its jitter are."""
    assert [Job("x", interval, 0.3).catch_up for interval in (10, 3600)] == [3, 10]


# What cannot be judged


def test_a_wall_clock_that_was_set_is_found() -> None:
    """Due times are of the wall clock, and mean nothing then."""
    found = evidence(regular())
    found.events[:] = [
        replace(each, wall=each.wall + 1) if each.monotonic > 50 else each for each in found.events
    ]
    assert "the wall clock was set by 1.000 s" in violations(found)


def test_one_reading_of_the_clocks_that_was_held_up_says_nothing() -> None:
    """A process can be stopped between them."""
    often = Job("tidy", interval=1, jitter=0.3)
    found = evidence(regular(often), job=often)
    found.events[-1] = replace(found.events[-1], wall=found.events[-1].wall + 4.5)
    assert violations(found, job=often) == []


def test_a_process_that_does_not_come_up_is_found() -> None:
    """What is said of six processes must be about six."""
    assert "1 processes came up, not 2" in violations(evidence(regular(), pids=(1,)))


def test_a_process_that_ends_by_itself_is_found() -> None:
    """Another came up in its place, and nothing had been done to it."""
    found = violations(evidence(regular(), event("up", 3, 50)))
    assert "a process ended to which nothing was done" in found


def test_a_process_that_was_terminated_may_be_followed_by_another() -> None:
    """It did not end by itself."""
    assert disturbed(regular(), event("terminate", 2, 98.5), event("up", 5, 99)) == []


def test_what_is_done_after_the_end_of_a_run_does_not_count() -> None:
    """All processes are terminated then."""
    assert violations(evidence(regular(), event("terminate", 1, SECONDS + 1))) == []


def test_a_disturbed_run_in_which_nothing_was_done_proves_nothing() -> None:
    """Somebody has forgotten the signals."""
    found = violations(evidence(regular()), quiet=False)
    assert found == ["nothing was done to the processes"]


def test_a_quiet_run_in_which_something_was_done_is_none() -> None:
    """It would be excused from nothing."""
    found = violations(evidence(regular(), event("stop", 2, 50), event("continue", 2, 54)))
    assert "{'stop': 1, 'continue': 1} was done to the processes" in found


WRITTEN = "2026-01-01 03:00:00,123"


def complaining(line: str, *, quiet: bool) -> list[str]:
    """Judge a run in which nothing is wrong but that the service complains."""
    found = replace(evidence(regular(), *(() if quiet else ELSEWHERE)), complaints=[line])
    return judge(found, [TIDY], processes=2 if quiet else 3, lease=LEASE, quiet=quiet).violations


@pytest.mark.parametrize(
    "words",
    [
        "ERROR cron: the database is away, no job starts until it is back: disk I/O error",
        "WARNING cron: the database is back after 5 s",
        "ERROR cron: the database is not told of the end: database is locked",
        "WARNING waiting for the database: connection refused",
        "WARNING cron: this process did not run from 2026 to 2027 UTC, or its clock was set",
        "ERROR cron: tidy run 7 does not end; it is left behind",
        "ERROR tidy run 7: ok, which is not recorded",
        "WARNING tidy run 7: error, but it was not the last run any more: it counts as abandoned",
        "ERROR tidy run 7: its lease is lost, it is stopped: it could not be renewed in time",
        "ERROR tidy run 7: error: it could not be renewed in time",
        "ERROR tidy run 7: interrupted: tidy run 7 is not the last any more; nothing is written",
        "ERROR tidy run 7: error: (sqlite3.OperationalError) database or disk is full [SQL: x]",
        "ERROR tidy run 7: error: (psycopg.errors.AdminShutdown) terminating connection",
    ],
)
def test_a_disturbed_run_may_complain_of_what_is_done(words: str) -> None:
    """In a quiet one nothing is, so there is nothing to complain of."""
    line = f"{WRITTEN} {words}"
    assert complaining(line, quiet=False) == []
    assert complaining(line, quiet=True) == [f"the service complains: {line}"]


@pytest.mark.parametrize(
    "line",
    [
        f"{WRITTEN} ERROR cron: the driver has failed; it goes on in 1 s",
        f"{WRITTEN} ERROR cron: the leases cannot be renewed",
        f"{WRITTEN} ERROR cron: tidy cannot be claimed, or its end recorded",
        f"{WRITTEN} WARNING cron: tidy is due but all threads are busy (CRON_THREADS)",
        f"{WRITTEN} ERROR tidy run 7: error: unsupported operand type(s)",
        f"{WRITTEN} ERROR tidy run 7: error: (sqlite3.OperationalError) no such table: cron_job",
        f"{WRITTEN} ERROR tidy run 7: error: (psycopg.errors.DeadlockDetected) deadlock detected",
        f"{WRITTEN} ERROR tidy run 7: error: nobody asked for this cancel",
        "Task exception was never retrieved",
        "ERROR:    Application startup failed. Exiting.",
        "RuntimeError: this ended a thread",
    ],
)
@pytest.mark.parametrize("quiet", [False, True])
def test_any_other_complaint_is_a_violation_whatever_is_done(line: str, quiet: bool) -> None:
    """The line is quoted."""
    assert complaining(line, quiet=quiet) == [f"the service complains: {line}"]


TRACEBACK = """\
Traceback (most recent call last):
  File "x.py", line 1, in x
    raise ValueError
"""

NEWS = f"{WRITTEN} INFO cron: 4 jobs"


@pytest.mark.parametrize(
    ("log", "complaints"),
    [
        (f"{NEWS}\nINFO:     Started server process [1]\n{NEWS}\n", []),
        (f"{WRITTEN} WARNING cron: x\n{NEWS}\n", [f"{WRITTEN} WARNING cron: x"]),
        (f"{WRITTEN} ERROR cron: x\n{TRACEBACK}ValueError: y\n", [f"{WRITTEN} ERROR cron: x"]),
        (
            f"{WRITTEN} ERROR fails run 1: error: every other time\n"
            f"{TRACEBACK}ValueError: every other time\n{NEWS}\n",
            [],  # it is made to fail
        ),
        (
            f"{WRITTEN} ERROR fails run 1: error: something else\n{TRACEBACK}ValueError: y\n",
            [f"{WRITTEN} ERROR fails run 1: error: something else"],
        ),
        (f"{NEWS}\n{TRACEBACK}ValueError: y\n{NEWS}\n", ["ValueError: y"]),  # nobody's
        (
            f"{WRITTEN} ERROR fails run 1: error: every other time\n{TRACEBACK}ValueError: z\n"
            f"Task exception was never retrieved\nfuture: <Task>\n{TRACEBACK}ValueError: y\n",
            ["Task exception was never retrieved"],
        ),
        (f"{NEWS}\nException in thread x:\n{TRACEBACK}", ["Exception in thread x:"]),
        (f"{NEWS}\nx.py:1: RuntimeWarning: y\n  x()\n", ["x.py:1: RuntimeWarning: y"]),
        (f"{NEWS}\nERROR:    x\n", ["ERROR:    x"]),
        ("Fatal Python error: x\n", ["Fatal Python error: x"]),
    ],
)
def test_complaints_are_read_from_the_log(tmp_path: Path, log: str, complaints: list[str]) -> None:
    """One of each: of the service, of its server, of asyncio, of Python."""
    (tmp_path / "service.log").write_text(log)
    assert read_complaints(tmp_path / "service.log") == complaints


def test_what_a_due_time_waits_for_may_be_a_locked_database() -> None:
    """A stopped process keeps an end from being recorded, from which an overrun's gap counts."""
    bodies = after(Body(50, took=9), Body(76.4, pid=2, late=0.0))
    signals = event("stop", 3, 58.9), event("continue", 3, 63.4)
    assert disturbed(bodies, *signals) == []


# What is done to the database, the link to it, and the clocks


@pytest.mark.parametrize(
    ("took", "bound"),
    [
        (0.5, 69),  # tried again within 5 s of the 59th; the catch-up delay, and two seconds
        (4, 82),  # its end was recorded no sooner, and a whole gap counts from then
    ],
)
@pytest.mark.parametrize("beyond", [-0.1, 0.1])
def test_after_an_outage_a_run_has_its_bound(took: float, bound: float, beyond: float) -> None:
    """The rest of the processes is as long as the outage, and a second."""
    bodies = after(Body(50, took=took), Body(bound + beyond, pid=2, late=0.0))
    assert bool(gaps(disturbed(bodies, *AWAY))) == (beyond > 0)


@pytest.mark.parametrize(("at", "wrong"), [(62.9, False), (50.6, True)])
def test_after_a_disconnection_there_is_another_try_within_a_second(at: float, wrong: bool) -> None:
    """So it explains a late start only if it came when the run was due."""
    bodies = after(Body(48, late=0.0), Body(67.5, pid=2, late=0.0))
    assert bool(gaps(disturbed(bodies, event("disconnect", 0, at, amount=9)))) == wrong


def test_no_outage_explains_an_overlap_or_a_duplicate() -> None:
    """What is left of a run is cancelled in time, and a due time is there only once."""
    assert "tidy: two runs at once for 0.100 s" in disturbed(after(*OVERLAP), *AWAY)
    twice = after(Body(54.9), Body(59.1, pid=2), Body(60, pid=1))
    assert "tidy: two starts 0.900 s apart" in disturbed(twice, *AWAY)


@pytest.mark.parametrize(("at", "lost"), [(54, 0), (55.1, 0), (50, 1), (66, 1)])
@pytest.mark.parametrize("what", ["away", "disconnect"])
def test_the_answer_to_a_claim_can_be_lost_with_the_database(
    what: str, at: float, lost: int
) -> None:
    """When that begins, but not long before or after: then a due time was lost."""
    ends = [event("back", 0, 59)] if what == "away" else []
    bodies = after(Body(at, begun=False, outcome="abandoned"), Body(at + 9, pid=2))
    assert judged(evidence(bodies, *ELSEWHERE, event(what, 0, 55), *ends)).lost == lost


@pytest.mark.parametrize(
    ("threaded", "pid", "mended", "expected"),
    [
        (True, 1, 55.5, (0, 1)),
        (False, 1, 55.5, (1, 0)),  # it is cancelled when its lease cannot be renewed
        (True, 3, 55.5, (1, 0)),  # another process was cut off
        (True, 1, 52, (1, 0)),  # not for long enough
    ],
)
def test_a_cut_link_explains_an_overlap_of_a_thread_only(
    threaded: bool, pid: int, mended: float, expected: tuple[int, int]
) -> None:
    """Nobody can cancel it while it waits for an answer."""
    job = replace(TIDY, threaded=threaded)
    found = evidence(after(*OVERLAP), *ELSEWHERE, event("cut", pid, 51), event("mend", pid, mended))
    found.commits.extend(writing("tidy"))
    found = replace(found, postgres=True)
    [row] = judge(found, [job], processes=3, lease=LEASE, quiet=False).rows
    assert (row.overlaps, row.overlaps_cut_off) == expected


def writing(job: str) -> list[Commit]:
    """Let others claim the job all the time, so that nobody can have locked it."""
    return [Commit("claim", job, 4, 1, EPOCH + at / 20) for at in range(20 * SECONDS)]


@pytest.mark.parametrize(
    ("locked", "bound"),
    [
        (False, 60.5),  # it is due at 57, later than the lease ends; the catch-up delay, and 2 s
        (True, 77),  # 10 s later, and a gap may count from then
    ],
)
@pytest.mark.parametrize("beyond", [-0.2, 0.2])
def test_a_run_of_a_process_that_is_cut_off_is_taken_over(
    locked: bool, bound: float, beyond: float
) -> None:
    """When its lease ends, or when Postgres takes from it what it has locked."""
    often = Job("tidy", interval=5, jitter=0.3)
    cut_off = Body(50.5, took=3, how="cancelled")
    bodies = after(cut_off, Body(bound + beyond, pid=2, late=0.0), job=often)
    events = event("cut", 1, 51), event("mend", 1, 55.5)
    found = replace(evidence(bodies, *ELSEWHERE, *events, job=often), postgres=True)
    if not locked:
        found.commits.extend(writing("tidy"))
    texts = judge(found, [often], processes=3, lease=LEASE, quiet=False).violations
    assert bool(gaps(texts)) == (beyond > 0)


@pytest.mark.parametrize(("at", "lost"), [(51.5, 0), (61.5, 0), (63.5, 1), (48, 1)])
def test_a_claim_can_arrive_late_where_a_link_was_cut(at: float, lost: int) -> None:
    """It is sent again when as much time has passed after the cut as in it; 2 s later at most."""
    bodies = after(Body(at, begun=False, outcome="missed"), Body(at + 9, pid=2))
    events = event("cut", 1, 51), event("mend", 1, 55.5)
    assert judged(evidence(bodies, *ELSEWHERE, *events)).lost == lost


def stepped(bodies: Sequence[Body], seconds: float, *, pid: int = 0, at: float = 55) -> Evidence:
    """Step the wall clock: SQLite's or, with a process, that of this one on Postgres."""

    def wall(moment: float, owner: int = 0) -> float:
        return moment + seconds * (moment > EPOCH + at and owner == pid)

    found = evidence(bodies, *ELSEWHERE)
    service = ("start", "end", "up")
    found.events[:] = [
        replace(each, wall=wall(each.wall, pid and each.pid)) if each.what in service else each
        for each in found.events
    ]
    found.events.append(event("step", pid, at, amount=seconds))
    if not pid:
        found.commits[:] = [replace(each, at=wall(each.at)) for each in found.commits]
        found.claims[:] = [
            replace(each, at=wall(each.at), due=wall(each.due)) for each in found.claims
        ]
    return replace(found, postgres=bool(pid))


def judged(found: Evidence) -> Verdict:
    """Judge it as a disturbed run."""
    return judge(found, [TIDY], processes=3, lease=LEASE, quiet=False)


@pytest.mark.parametrize("pid", [0, 2])
@pytest.mark.parametrize("seconds", [3600, -3600])
def test_a_step_by_which_nothing_goes_wrong_is_no_violation(pid: int, seconds: float) -> None:
    """Whose clock it was, and in which direction."""
    found = judged(stepped(regular(), seconds, pid=pid))
    assert found.violations == []
    assert found.faults["step"] == 1
    assert found.delays == pytest.approx([0.01] * 10, abs=1e-5)


def test_on_postgres_all_wall_clocks_may_be_stepped() -> None:
    """The database's is not, nor ours."""
    found = stepped(regular(), 3600, pid=2)
    for pid in (1, 3, 4):
        found.events.append(event("step", pid, 55, amount=-3600))
    found.events[:] = [
        replace(each, wall=each.wall - 3600) if each.pid == 1 and each.what != "step" else each
        for each in found.events
    ]
    assert judged(found).violations == []


@pytest.mark.parametrize(
    ("seconds", "pid", "expected"), [(3600, 0, (0, 1)), (-3600, 0, (1, 0)), (3600, 2, (1, 0))]
)
def test_the_start_after_a_step_forwards_may_be_near_on_sqlite(
    seconds: float, pid: int, expected: tuple[int, int]
) -> None:
    """Not after one back, and never on Postgres, whose clock is no process's."""
    bodies = after(Body(54, late=0.0), Body(55.5, pid=2, late=0.0))
    [row] = judged(stepped(bodies, seconds, pid=pid)).rows
    assert (row.duplicates, row.near) == expected


def test_only_one_start_after_a_step_may_be_near() -> None:
    """The next one is due by the new clock."""
    bodies = after(*(Body(at, late=0.0) for at in (54, 55.5, 57)))
    [row] = judged(stepped(bodies, 3600)).rows
    assert (row.duplicates, row.near) == (1, 1)


@pytest.mark.parametrize(
    ("at", "pid", "expected"),
    [(55, 0, (0, 1)), (40, 0, (1, 0)), (59.05, 0, (1, 0)), (55, 2, (1, 0))],
)
def test_a_step_explains_an_overlap_on_sqlite_if_it_ended_the_lease(
    at: float, pid: int, expected: tuple[int, int]
) -> None:
    """It came between the two starts. On Postgres it ends none."""
    [row] = judged(stepped(after(*OVERLAP), 3600, pid=pid, at=at)).rows
    assert (row.overlaps, row.overlaps_stepped) == expected


@pytest.mark.parametrize(("gap", "pid", "wrong"), [(37.9, 0, 0), (38.1, 0, 1), (18.1, 2, 1)])
def test_after_a_step_a_run_is_due_within_a_look_and_a_gap(
    gap: float, pid: int, wrong: int
) -> None:
    """15 s and 13 s from the step on, and then 5 s as ever. On Postgres nothing is added."""
    bodies = after(Body(50), Body(50 + gap, pid=2, late=0.0))
    assert len(gaps(judged(stepped(bodies, -3600, pid=pid)).violations)) == wrong


@pytest.mark.parametrize(("at", "wrong"), [(67.9, 0), (68.1, 1)])
@pytest.mark.parametrize("what", ["step", "disconnect"])
def test_what_is_done_while_a_run_may_still_start_in_time_can_come_before_it(
    what: str, at: float, wrong: int
) -> None:
    """Due at second 63, it has 5 s: the catch-up delay, and what a busy machine may take."""
    bodies = after(Body(50), Body(71, pid=2, late=0.0))
    if what == "step":
        found = stepped(bodies, 3600, at=at)
    else:
        found = evidence(bodies, *ELSEWHERE, event(what, 0, at, amount=9))
    assert len(gaps(judged(found).violations)) == wrong


def test_a_stale_write_is_a_violation_whatever_was_done() -> None:
    """Nothing of all that lets a run write after another one has been claimed."""
    found = stepped(regular(), 3600)
    signals = event("stop", 2, 51), event("continue", 2, 55), event("cut", 1, 51)
    found.events.extend([*AWAY, *signals, event("mend", 1, 56)])
    found.commits.append(found.commits[7])
    assert judged(found).stale_writes == 1


# The report


def test_the_table_tells_due_times_claims_and_runs_apart() -> None:
    """A claim may be lost with its process, so there are fewer runs."""
    lost = Body(50, begun=False, outcome="abandoned")
    signals = event("kill", 1, 50.1), event("up", 5, 51)
    found = verdict(evidence(after(lost, Body(60, pid=2)), *signals), quiet=False)
    head, cells, *_ = report("kill", found, load=0, quiet=False).splitlines()
    assert re.split(" {2,}", head)[:4] == ["job", "due times", "claims", "runs"]
    assert cells.split()[:4] == ["tidy", "10", "10", "9"]


@pytest.mark.parametrize(("held_up", "told"), [(0.4, False), (2.3, True)])
def test_a_machine_that_stood_still_is_told(held_up: float, told: bool) -> None:
    """It excuses nothing, but whoever reads of a late start can guess why it was."""
    found = judged(evidence(regular(), *ELSEWHERE))
    last = report("kill", found, load=0, quiet=False, held_up=held_up).splitlines()[-1]
    assert ("the machine stood still for 2.3 s" in last) == told


def test_a_sum_tells_what_was_done_and_what_came_of_it() -> None:
    """All scenarios of a database together."""
    first = judged(stepped(after(*OVERLAP), 3600))
    second = judged(evidence(regular(), *ELSEWHERE, *AWAY))
    lines = [line.strip() for line in total("sqlite", [first, second]).splitlines()]
    assert lines[0] == "sqlite:"
    assert {
        "duplicates: 0",
        "overlaps: 0 (+1 stepped)",
        "stale fenced writes: 0",
        "lost: 0",
        "processes killed: 2",
        "times the disk was full: 1",
        "steps of the wall clock: 1",
    } <= set(lines)
