"""One claim: several processes share a database, and each due time makes one run, in one of them.

`replica` stands for such a process, inside the test's: a scheduler with a store of its own, on the
database at `url`, which is a new one on SQLite or on Postgres. It ends with its block, as by
SIGTERM. `freeze` holds its scheduler and its `async` jobs, but not its threads: to the others it is
as if it had been killed.

A process wakes when it knows that a job is due or a lease over. Besides, it looks into the database
every 15 s: for a request, a resume, a run that a shutdown cut short.
"""

import asyncio
from contextlib import suppress
from itertools import pairwise

import pytest
from sqlalchemy import URL, Connection, text

from app.cron import JobContext, every, job
from app.cron.clock import seeded
from app.cron.fence import LeaseLost
from support import FakeClock, fixed, replica
from support.databases import query

MINUTELY = every(minutes=1, jitter=0)


async def test_three_processes_make_one_run_of_each_due_time(clock: FakeClock, url: URL) -> None:
    """All three look, all three find the job due, and one claims it: a claim is a transaction that
    changes the job's row, if nobody has changed it before."""
    starts = list[float]()

    @job(MINUTELY)
    async def tick(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    async with (
        replica(clock, url, tick),
        replica(clock, url, tick),
        replica(clock, url, tick),
    ):
        await clock.advance(minutes=3)
    assert starts == [0, 60, 120, 180]


async def test_with_jitter_too_a_due_time_makes_one_run(clock: FakeClock, url: URL) -> None:
    """Of three processes, each with its own chance, the one that claims a run draws for all when
    the next one is due: gaps are 42 to 78 s."""
    starts = list[float]()

    @job(every(minutes=1))
    async def tick(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    async with (
        replica(clock, url, tick, random=seeded("one")),
        replica(clock, url, tick, random=seeded("two")),
        replica(clock, url, tick, random=seeded("three")) as third,
    ):
        await clock.advance(minutes=15)
        assert len(await third.store.history("tick")) == len(starts)
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert len(gaps) >= 900 / 78 - 1
    assert 42 <= min(gaps) < 55
    assert 65 < max(gaps) <= 78


async def test_a_restart_repeats_no_run(clock: FakeClock, url: URL) -> None:
    """What is due is in the database: a process that starts before that waits for it."""
    starts = list[float]()

    @job(MINUTELY)
    async def tick(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    for _ in range(3):
        async with replica(clock, url, tick):
            await clock.advance(seconds=25)
    assert starts == [0, 60]


@pytest.mark.parametrize(
    ("jitter", "expected"),
    [(0, [0, 3625, 3685]), (0.3, [10, 3625 + 10, 3635 + 78])],
    ids=["no jitter", "jitter"],
)
async def test_what_is_missed_while_nobody_runs_makes_one_run(
    clock: FakeClock, url: URL, jitter: float, expected: list[float]
) -> None:
    """For an hour there is no process. The one that starts at 3625 s runs the job once: at once or,
    with jitter, within 10 s; and then an interval later."""
    starts = list[float]()

    @job(every(minutes=1, jitter=jitter))
    async def tick(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    async with replica(clock, url, tick, random=fixed(1)):
        await clock.advance(seconds=10)
    await clock.advance(seconds=3615)
    async with replica(clock, url, tick, random=fixed(1)):
        await clock.advance(seconds=88)
    assert starts == expected


@pytest.mark.parametrize(("interval", "seconds"), [(5, 40), (300, 300)])
async def test_the_run_of_a_killed_process_is_taken_over(
    clock: FakeClock, url: URL, interval: float, seconds: float
) -> None:
    """A claim holds for a lease of 30 s, which a living process renews each 10 s. When the lease is
    over and the job due again, another process runs it: what was killed is not made up for sooner.
    The lost run is shown as abandoned."""
    starts = list[tuple[str, float]]()

    @job(every(seconds=interval, jitter=0))
    async def tick(ctx: JobContext) -> None:
        starts.append((ctx.state.replica, ctx.clock.monotonic()))
        await ctx.clock.sleep(25)

    async with replica(clock, url, tick) as first, replica(clock, url, tick) as second:
        await clock.advance(seconds=12)
        first.freeze()  # it has renewed its lease at 10 s: it holds until 40 s
        await clock.advance(seconds=seconds + 25 - 12)  # when the second run ends
        assert starts == [(first.name, 0), (second.name, seconds)]
        runs = await second.store.history("tick")
        assert [run.outcome for run in runs] == ["abandoned", "ok"]


async def test_a_run_that_was_taken_over_can_write_nothing(clock: FakeClock, url: URL) -> None:
    """It may not know yet: it was frozen, say. `ctx.write` commits only while its run is the last
    one of its job, and otherwise raises LeaseLost."""
    gate, refused = clock.gate(), list[str]()

    @job(every(seconds=5, jitter=0))
    def writes(ctx: JobContext) -> None:
        def write(connection: Connection) -> None:
            connection.execute(text("CREATE TABLE IF NOT EXISTS written (run_no INTEGER)"))
            connection.execute(text("INSERT INTO written VALUES (:no)"), {"no": ctx.run_no})

        if ctx.run_no == 1:
            gate.wait()  # threads know nothing of `freeze`
        try:
            ctx.write(write)
        except LeaseLost as error:
            refused.append(str(error))

    async with replica(clock, url, writes) as first, replica(clock, url, writes):
        first.freeze()
        await clock.advance(seconds=30)  # when the second run begins, and ends
        gate.open()
        await clock.settle()
        assert query(url, "SELECT run_no FROM written") == [(2,)]
    assert refused == ["writes run 1 is not the last any more; nothing is written"]


async def test_a_run_that_a_shutdown_cut_short_is_begun_anew_elsewhere(
    clock: FakeClock, url: URL
) -> None:
    """With the next look of another process, at 30 s. It waits neither for the end of the lease nor
    for the due time, nor the little that a first run waits."""
    starts = list[tuple[str, float]]()

    @job(every(minutes=5))
    async def slow(ctx: JobContext) -> None:
        starts.append((ctx.state.replica, ctx.clock.monotonic()))
        await ctx.clock.sleep(60)

    async with (
        replica(clock, url, slow, random=fixed(1)) as first,
        replica(clock, url, slow, random=fixed(1)) as second,
    ):
        await clock.advance(seconds=12)
        await first.stop()  # that takes 5 s, the grace
        await clock.advance(seconds=13)
        assert starts == [(first.name, 10), (second.name, 30)]
        runs = await second.store.history("slow")
        assert [run.outcome for run in runs] == ["interrupted", None]


@pytest.mark.parametrize("kind", ["a thread", "a task"])
async def test_a_run_that_was_left_behind_keeps_its_lease(
    clock: FakeClock, url: URL, kind: str
) -> None:
    """A thread that ignores the shutdown, or a task that swallows its cancel, may still write. So
    its lease is not given up, though nobody renews it, and another process waits for its end, as
    after a kill."""
    gate, starts = clock.gate(), list[tuple[str, float]]()

    @job(every(seconds=10, jitter=0), name="deaf")
    def in_thread(ctx: JobContext) -> None:
        starts.append((ctx.state.replica, ctx.clock.monotonic()))
        gate.wait()

    @job(every(seconds=10, jitter=0), name="deaf")
    async def on_loop(ctx: JobContext) -> None:
        starts.append((ctx.state.replica, ctx.clock.monotonic()))
        while ctx.clock.monotonic() < 45:
            with suppress(asyncio.CancelledError):
                await ctx.clock.sleep(45 - ctx.clock.monotonic())

    deaf = in_thread if kind == "a thread" else on_loop
    async with replica(clock, url, deaf) as first, replica(clock, url, deaf) as second:
        await clock.advance(seconds=12)
        await first.stop()  # it has renewed its lease at 10 s: it holds until 40 s
        await clock.advance(seconds=39.999 - clock.monotonic())
        assert starts == [(first.name, 0)]
        await clock.advance(seconds=0.001)
        assert starts == [(first.name, 0), (second.name, 40)]
        gate.open()
        await clock.advance(seconds=5)
        runs = await second.store.history("deaf")
        assert [run.outcome for run in runs[:2]] == ["abandoned", "ok"]


async def test_a_pause_holds_in_all_processes(clock: FakeClock, url: URL) -> None:
    """`python -m app.cron pause tick` asks for it, and `resume`: then what the job has missed makes
    one run, with the next look of a process."""
    starts = list[float]()

    @job(MINUTELY)
    async def tick(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    async with replica(clock, url, tick) as first, replica(clock, url, tick) as second:
        await first.store.pause("tick")
        await clock.advance(minutes=10)
        assert starts == [0]
        await second.store.resume("tick")  # just after the looks at 600 s
        await clock.advance(seconds=30)
    assert starts == [0, 615]


async def test_a_request_makes_one_run(clock: FakeClock, url: URL) -> None:
    """With the next look, at 30 s, in one process, however often it was asked for. The interval
    counts from its start."""
    starts = list[float]()

    @job(every(minutes=5, jitter=0))
    async def tick(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    async with replica(clock, url, tick) as first, replica(clock, url, tick) as second:
        await clock.advance(seconds=20)
        for each in (first, second):
            await each.store.request("tick")
        await clock.advance(minutes=6)
    assert starts == [0, 30, 330]


@pytest.mark.parametrize(
    ("hours", "expected"), [(1, [0, 60, 75, 135, 195]), (-1, [0, 60, 135, 195])]
)
async def test_a_step_of_the_wall_clock_leaves_no_job_stuck(
    clock: FakeClock, url: URL, hours: int, expected: list[float]
) -> None:
    """Due times in a database are times on the wall. An hour forwards, and the next look finds the
    job due, once; an hour back, and it is due an interval after that look, which comes at 75 s."""
    starts = list[float]()

    @job(MINUTELY)
    async def tick(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    async with replica(clock, url, tick), replica(clock, url, tick):
        await clock.advance(seconds=70)
        clock.step(hours=hours)
        await clock.advance(seconds=130)
    assert starts == expected
