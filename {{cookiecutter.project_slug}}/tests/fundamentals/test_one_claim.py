"""One claim: several processes share a database, and each due time makes one run, in one of them.

`replica` is such a process: a scheduler with a store of its own. All in one folder share a file.
"""

from sqlalchemy import URL, Connection, text

from app.cron import JobContext, every, job
from app.cron.fence import LeaseLost
from support import FakeClock, replica

MINUTELY = every(minutes=1, jitter=0)


async def test_three_processes_make_one_run_of_each_due_time(clock: FakeClock, url: URL) -> None:
    """All three look, all three find the job due, and one claims it."""
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


async def test_what_is_missed_while_nobody_runs_makes_one_run(clock: FakeClock, url: URL) -> None:
    """Sixty due times pass in an hour without a process. The next one runs the job once, and then
    an interval later."""
    starts = list[float]()

    @job(MINUTELY)
    async def tick(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    async with replica(clock, url, tick):
        pass
    await clock.advance(hours=1)
    async with replica(clock, url, tick):
        await clock.advance(seconds=60)
    assert starts == [0, 3600, 3660]


async def test_the_run_of_a_killed_process_is_taken_over(clock: FakeClock, url: URL) -> None:
    """A claim holds for a lease of 30 s, which a living process renews each 10 s. When it has ended
    another process runs the job, and the lost run is shown for what it is."""
    starts = list[tuple[str, float]]()

    @job(every(seconds=5, jitter=0))
    async def tick(ctx: JobContext) -> None:
        starts.append((ctx.state.replica, ctx.clock.monotonic()))
        await ctx.clock.sleep(25)

    async with replica(clock, url, tick) as first, replica(clock, url, tick) as second:
        await clock.advance(seconds=12)
        first.freeze()  # it has renewed its lease at 10 s, and does nothing any more
        await clock.advance(seconds=53)
        assert starts == [(first.name, 0), (second.name, 40)]
        runs = await second.store.history("tick")
        assert [run.outcome for run in runs] == ["abandoned", "ok"]


async def test_a_run_that_was_taken_over_can_write_nothing(clock: FakeClock, url: URL) -> None:
    """It may not know yet: it was frozen, say. `ctx.write` commits only while its run is the last
    one of its job."""
    gate, refused = clock.gate(), list[str]()

    def write(connection: Connection) -> None:
        connection.execute(text("CREATE TABLE IF NOT EXISTS written (run_no INTEGER)"))

    @job(every(seconds=5, jitter=0))
    def writes(ctx: JobContext) -> None:
        if ctx.run_no == 1:
            gate.wait()  # until the second run has ended
        try:
            ctx.write(write)
        except LeaseLost as error:
            refused.append(str(error))

    async with replica(clock, url, writes) as first, replica(clock, url, writes):
        first.freeze()
        await clock.advance(seconds=30)
        gate.open()
        await clock.settle()
    assert refused == ["writes run 1 is not the last any more; nothing is written"]


async def test_a_pause_holds_in_all_processes(clock: FakeClock, url: URL) -> None:
    """Whichever was asked for it, none claims a paused job. What it has missed meanwhile makes one
    run, with the next look, of which there is one every 15 s."""
    starts = list[float]()

    @job(MINUTELY)
    async def tick(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    async with replica(clock, url, tick) as first, replica(clock, url, tick) as second:
        await first.store.pause("tick")
        await clock.advance(minutes=10)
        assert starts == [0]
        await second.store.resume("tick")
        await clock.advance(seconds=30)
    assert starts == [0, 615]


async def test_a_request_makes_one_run(clock: FakeClock, url: URL) -> None:
    """Soon, since each process looks every 15 s; in one of them, however often it was asked for."""
    starts = list[float]()

    @job(every(hours=1, jitter=0))
    async def tick(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    async with replica(clock, url, tick) as first, replica(clock, url, tick) as second:
        await clock.advance(seconds=20)
        for each in (first, second):
            await each.store.request("tick")
        await clock.advance(minutes=30)
    assert starts == [0, 30]
