"""The store in the database, as several processes share it: leases, owners, races and faults.

What one process sees of it is in `test_store.py`, what people see in `test_records.py`. Here `one`
and `two` are two processes, which both know the job `tick`; it is due.
"""

import asyncio
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import URL, event, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from app.cron.database import Database
from app.cron.moment import to_microseconds
from app.cron.records import ProcessRecord
from app.cron.sql_store import SqlStore
from app.cron.sqlite import SqliteDatabase
from app.cron.store import Claimed, Registration, StoreUnavailable
from support import FakeClock, on_sqlite, path_of
from support.databases import contents, cron_database
from support.stores import (
    LEASE,
    LOSSES,
    NOW,
    after,
    claim,
    compete,
    delay_of,
    end_it,
    failed,
    first_in,
    look_at,
    ok,
    on_each_statement,
    sql_store,
)

MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

# Another run of `tick` is due whatever the clock says.
LONG_DUE = -timedelta(days=365)


@pytest_asyncio.fixture
async def one(database: Database, clock: FakeClock) -> SqlStore:
    """A process."""
    store = sql_store(database, clock, "one")
    await store.register([first_in(NOW)])
    return store


@pytest_asyncio.fixture
async def two(database: Database, clock: FakeClock) -> SqlStore:
    """Another process."""
    store = sql_store(database, clock, "two")
    await store.register([first_in(NOW)])
    return store


# Leases


@pytest.mark.parametrize(("early", "claims"), [(MICROSECOND, 0), (NOW, 1)])
async def test_a_lease_holds_until_its_end(
    one: SqlStore, two: SqlStore, clock: FakeClock, early: timedelta, claims: int
) -> None:
    """As APScheduler's test_acquire_schedules_lock_timeout, and as exact as db-scheduler's
    SchedulerTest: a microsecond before it nobody claims the job, at its end anybody does."""
    await claim(one, delay=NOW)
    await clock.advance(LEASE - early)
    assert len(await two.claim([after(1)])) == claims


@pytest.mark.parametrize("forced", [False, True])
async def test_no_request_breaks_a_lease(one: SqlStore, two: SqlStore, forced: bool) -> None:
    """Neither one that is in the database nor one at the keyboard, of whichever process."""
    await claim(one, delay=NOW)
    await two.request("tick")
    for store in (one, two):
        assert await store.claim([replace(after(1), forced=forced)]) == []


async def test_a_claim_in_vain_writes_nothing(
    database: Database, one: SqlStore, two: SqlStore
) -> None:
    """Of many processes only one gets the run, and the others keep the database no longer."""
    await claim(one)
    statements = list[str]()
    with on_each_statement(database, statements.append):
        assert await two.claim([after(1)]) == []
    assert not any("INSERT INTO cron_run" in statement for statement in statements)


def test_a_lease_is_whole_seconds(database: Database, clock: FakeClock) -> None:
    """The row could not hold the rest, for which the process would trust it."""
    with pytest.raises(
        ValueError, match=r"^the lease is 0:00:03.900000: it must be whole seconds$"
    ):
        SqlStore(database, clock, owner="one", lease=timedelta(seconds=3.9))


async def test_a_look_tells_for_how_long_a_lease_holds(
    one: SqlStore, two: SqlStore, clock: FakeClock
) -> None:
    """It shrinks as time passes, and ends with the run."""
    claimed = await claim(one)
    assert (await look_at(two)).held_for == LEASE
    await clock.advance(seconds=10)
    assert (await look_at(two)).held_for == LEASE - 10 * SECOND
    ([look], _) = await one.finish([ok(claimed)])
    assert look.held_for == NOW


async def test_a_lease_that_is_renewed_holds_on(
    one: SqlStore, two: SqlStore, clock: FakeClock
) -> None:
    """As ShedLock's KeepAliveLockProviderTest: renewed after each third, it never ends."""
    claimed = await claim(one, delay=NOW)
    for _ in range(30):
        await clock.advance(LEASE / 3)
        assert await one.heartbeat([claimed]) == {"tick": True}
        assert (await look_at(two)).held_for == LEASE
    assert await two.claim([after(1)]) == []


@pytest.mark.parametrize(("early", "held"), [(MICROSECOND, True), (NOW, False)])
async def test_a_lease_that_is_over_cannot_be_renewed(
    one: SqlStore, two: SqlStore, clock: FakeClock, early: timedelta, held: bool
) -> None:
    """As ShedLock's shouldNotBeAbleToExtendExpiredLock, though nobody has claimed the job yet."""
    claimed = await claim(one, delay=NOW)
    await clock.advance(LEASE - early)
    assert await one.heartbeat([claimed]) == {"tick": held}
    assert len(await two.claim([after(1)])) == (0 if held else 1)


async def test_one_heartbeat_renews_what_it_can(
    one: SqlStore, two: SqlStore, clock: FakeClock
) -> None:
    """One lease that is lost costs no other."""
    await one.register([first_in(NOW, "other")])
    runs = await one.claim([after(0), after(0, "other")])
    await clock.advance(LEASE / 2)
    await one.heartbeat(runs[1:])
    await clock.advance(LEASE / 2)
    assert await one.heartbeat(runs) == {"tick": False, "other": True}
    assert (await look_at(one, "other")).held_for == LEASE


async def test_a_lease_is_as_long_as_its_owner_said(
    one: SqlStore, database: Database, clock: FakeClock
) -> None:
    """Two processes with different CRON_LEASE_SECONDS: each honours what the other holds."""
    short = sql_store(database, clock, "short", lease=5 * SECOND)
    await short.register([first_in(NOW)])
    for owner, other, lease in ((one, short, LEASE), (short, one, 5 * SECOND)):
        run_no = (await look_at(owner)).run_no
        await claim(owner, run_no, LONG_DUE)
        assert (await look_at(other)).held_for == lease
        await clock.advance(lease - MICROSECOND)
        assert await other.claim([after(run_no + 1)]) == []
        await clock.advance(MICROSECOND)


@pytest.mark.parametrize("lease", [LEASE, 5 * SECOND], ids=["of the same length", "shorter"])
@pytest.mark.parametrize(
    ("offset", "held"),
    [
        (-HOUR, False),
        (-MICROSECOND, False),
        (NOW, True),
        (LEASE - MICROSECOND, True),
        (LEASE, False),
        (HOUR, False),
    ],
)
async def test_a_stepped_clock_ends_a_lease(
    one: SqlStore,
    database: Database,
    clock: FakeClock,
    lease: timedelta,
    offset: timedelta,
    held: bool,
) -> None:
    """As Kubernetes' CronJob controller's "time drifted back": one that would hold for longer than
    its owner can have meant holds no more. What is shown and what can be claimed is the same."""
    two = sql_store(database, clock, "two", lease=lease)
    await two.register([first_in(NOW)])
    await claim(one, delay=LONG_DUE)
    clock.step(offset)
    assert ((await look_at(two)).held_for > NOW) == held
    assert ([job.held_by for job in await two.jobs()] == ["one"]) == held
    assert (await two.claim([after(1)]) == []) == held


async def test_a_heartbeat_after_a_step_back_sets_the_lease_right(
    one: SqlStore, two: SqlStore, clock: FakeClock
) -> None:
    """Who is first, the owner or another, has the job."""
    claimed = await claim(one, delay=LONG_DUE)
    clock.step(-HOUR)
    assert await one.heartbeat([claimed]) == {"tick": True}
    assert (await look_at(two)).held_for == LEASE
    assert await two.claim([after(1)]) == []


# Owners


@pytest.mark.parametrize("lose", LOSSES)
async def test_a_heartbeat_of_a_lost_run_changes_nothing(
    one: SqlStore,
    two: SqlStore,
    database: Database,
    clock: FakeClock,
    lose: Callable[..., Awaitable[None]],
) -> None:
    """As River's LosesLeadershipWhenSameLeaderIDTermIsReplaced, the same process or not: it is
    told that the run is lost, and the lease of the newer one is not its to renew."""
    claimed = await claim(one, delay=NOW)
    await lose(one, two, clock, claimed)
    before = contents(database)
    await clock.advance(SECOND)
    assert await one.heartbeat([claimed]) == {"tick": False}
    assert contents(database) == before


@pytest.mark.parametrize("lose", LOSSES)
async def test_the_end_of_a_lost_run_changes_nothing(
    one: SqlStore,
    two: SqlStore,
    database: Database,
    clock: FakeClock,
    lose: Callable[..., Awaitable[None]],
) -> None:
    """Not the due time, nor the failures, nor the lease of the newer run, nor how its own ended. It
    is told so, unless it had an end before."""
    claimed = await claim(one, delay=NOW)
    await lose(one, two, clock, claimed)
    before = contents(database)
    _, lost = await one.finish([failed(claimed, failures=7, retry=NOW)])
    assert contents(database) == before
    assert lost == (set() if lose is end_it else {"tick"})


async def test_a_run_belongs_to_its_owner(one: SqlStore, two: SqlStore, database: Database) -> None:
    """Another process can neither end nor renew it, though it has the right number."""
    claimed = await claim(one)
    before = contents(database)
    assert await two.heartbeat([claimed]) == {"tick": False}
    await two.finish([failed(claimed, failures=7, retry=NOW)])
    assert contents(database) == before


async def test_a_late_end_counts_while_nobody_has_claimed_the_job(
    one: SqlStore, clock: FakeClock
) -> None:
    """The lease is over, but the run is still the last: how it ended is worth knowing."""
    claimed = await claim(one)
    await clock.advance(LEASE)
    ([look], _) = await one.finish([failed(claimed, failures=1, retry=5 * SECOND)])
    assert look.delay == 5 * SECOND
    [run] = await one.history("tick")
    assert run.outcome == "error"


async def test_an_end_that_is_recorded_again_is_recorded(one: SqlStore) -> None:
    """The first answer was lost: it was in time."""
    claimed = await claim(one)
    for _ in range(2):
        assert (await one.finish([ok(claimed)]))[1] == set()


async def test_an_end_that_is_ignored_keeps_no_other_from_being_recorded(
    one: SqlStore, two: SqlStore, clock: FakeClock
) -> None:
    """They come in one batch."""
    await one.register([first_in(NOW, "other")])
    runs = await one.claim([after(0, delay=NOW), after(0, "other")])
    await clock.advance(LEASE)
    await claim(two, 1)
    looks, _ = await one.finish([ok(run) for run in runs])
    assert [(look.name, look.run_no) for look in looks] == [("tick", 2), ("other", 1)]
    assert [run.outcome for run in await one.history("tick")] == ["abandoned", None]
    assert [run.outcome for run in await one.history("other")] == ["ok"]


# Races


async def test_of_all_that_see_a_job_due_one_gets_it(url: URL, clock: FakeClock) -> None:
    """As fastapi-crons' test_distributed_claiming, and as gocron's TestScheduler_WithDistributed
    means to: each process has the database open for itself, and all claim at the same time."""
    with ExitStack() as stack:
        databases = [stack.enter_context(cron_database(url)) for _ in range(4)]
        stores = [sql_store(each, clock, f"{number}") for number, each in enumerate(databases)]
        for store in stores:
            await store.register([first_in(NOW)])
        for run_no in range(10):
            claims = (store.claim([after(run_no, delay=NOW)]) for store in stores)
            claimed = dict(zip(stores, await asyncio.gather(*claims), strict=True))
            [(winner, [run])] = [item for item in claimed.items() if item[1]]
            await winner.finish([ok(run)])
        assert [run.run_no for run in await stores[0].history("tick")] == list(range(1, 11))


def test_processes_that_compete_never_run_a_job_at_the_same_time(
    database: Database, tmp_path: Path
) -> None:
    """As ShedLock's fuzzTestShouldPass: a count that nothing but the claims protects is right."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    compete(database, counter, processes=4, runs=20)  # ten show a lock that is missing
    [(*_,)] = contents(database)["cron_job"]
    runs = contents(database)["cron_run"]
    assert counter.read_text() == f"{len(runs)}"
    assert [run_no for _, run_no, *_ in runs] == list(range(1, len(runs) + 1))
    assert len({owner for *_, owner, _, _ in runs}) > 1


# All or nothing


Operation = Callable[[SqlStore, Claimed], Awaitable[Any]]

OPERATIONS: dict[str, Operation] = {
    "register": lambda store, _: store.register([first_in(NOW, "new"), first_in(DAY, "newer")]),
    "claim": lambda store, _: store.claim([after(1, "dead"), after(0, "due")]),
    "heartbeat": lambda store, run: store.heartbeat([run]),
    "finish": lambda store, run: store.finish([failed(run)]),
    "forget": lambda store, _: store.forget("dead"),
    "request": lambda store, _: store.request("due"),
    "pause": lambda store, _: store.pause("due"),
    "check_in": lambda store, _: store.check_in((datetime.min.replace(tzinfo=UTC),) * 2),
    "check_out": lambda store, _: store.check_out(),
}
"""What writes, for a store that has a run of `tick` and knows of `due` and `dead`, which are due.
The lease of the last run of `dead` is over."""


@pytest_asyncio.fixture
async def run(one: SqlStore, two: SqlStore, clock: FakeClock) -> Claimed:
    """What the operations need: it is under way."""
    for store in (one, two):
        await store.register([first_in(NOW, "due"), first_in(NOW, "dead")])
        await store.check_in()
    await two.claim([after(0, "dead", NOW)])
    await clock.advance(LEASE)
    claimed = await claim(one)
    await clock.advance(SECOND)
    return claimed


@on_sqlite
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
async def test_a_kill_between_any_two_statements_leaves_all_or_nothing(
    one: SqlStore, database: Database, run: Claimed, path: Path, operation: Operation
) -> None:
    """What a process that is killed leaves is its files as they are at that moment: after each
    statement, and right before the commit, they say what they said before."""
    before, images = contents(database), list[dict[str, list[tuple[Any, ...]]]]()

    def take_image(*_: Any) -> None:
        folder = path.with_name(f"image-{len(images)}")
        folder.mkdir()
        for file in path.parent.glob("app.db*"):
            shutil.copy(file, folder)
        images.append(contents(SqliteDatabase(folder / path.name)))

    with on_each_statement(database, take_image):
        event.listen(database._write_engine, "commit", take_image)
        await operation(one, run)
    assert len(images) > 2
    assert images == [before] * len(images)
    assert contents(database) != before


class Fault(Exception):
    """What should not happen has happened."""


def fault_after(statements: int) -> Callable[[str], None]:
    """What lets so many statements pass."""
    left = iter(range(statements))

    def pass_or_raise(_: str) -> None:
        if next(left, None) is None:
            raise Fault

    return pass_or_raise


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
async def test_a_fault_after_any_statement_leaves_all_or_nothing(
    one: SqlStore, database: Database, run: Claimed, operation: Operation
) -> None:
    """Nothing, as long as there is one; and then it can be done."""
    before = contents(database)
    for statements in count():
        try:
            with on_each_statement(database, fault_after(statements)):
                await operation(one, run)
            break
        except Fault:
            assert contents(database) == before
    assert statements >= 2
    assert contents(database) != before


@on_sqlite
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
async def test_a_write_has_the_file_to_itself_from_its_first_statement(
    one: SqlStore, database: Database, run: Claimed, path: Path, operation: Operation
) -> None:
    """So what it has read is still so when it writes, and nobody can come between."""
    answers = list[str]()

    def try_to_write(_: str) -> None:
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
                answers.append("begun")
            except sqlite3.OperationalError as error:
                answers.append(str(error))

    with on_each_statement(database, try_to_write):
        await operation(one, run)
    assert set(answers) == {"database is locked"}


async def test_a_claim_whose_answer_is_lost_is_no_claim(
    one: SqlStore, two: SqlStore, database: Database, clock: FakeClock
) -> None:
    """The database has committed, and says that it has not: the run is never begun, and after its
    lease another one is."""

    error = database._write_engine.dialect.loaded_dbapi.OperationalError

    def commit_and_fail(connection: Any) -> None:
        connection.commit()
        raise error("disk I/O error")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database._write_engine.dialect, "do_commit", commit_and_fail)
        with pytest.raises(StoreUnavailable, match="disk I/O error"):
            await one.claim([after(0, delay=NOW)])
    for store in (one, two):
        look = await look_at(store)
        assert (look.run_no, look.held_for) == (1, LEASE)
    await clock.advance(LEASE)
    await claim(two, 1)
    assert [run.outcome for run in await two.history("tick")] == ["abandoned", None]


# Due times


async def test_a_job_that_nobody_knows_any_more_is_left_alone(
    one: SqlStore, database: Database, clock: FakeClock
) -> None:
    """Its row and its runs stay, to the letter, whatever is done to others: another version of the
    code, beside this one or after it, may have it."""
    other = sql_store(database, clock, "other")
    names = ["dead", "due", "ended", "held", "later"]
    await other.register([first_in(DAY if name == "later" else NOW, name) for name in names])
    runs = await other.claim([after(0, name, NOW) for name in ("dead", "ended", "held")])
    await other.finish([failed(run) for run in runs if run.name == "ended"])
    await clock.advance(LEASE)
    await other.claim([after(1, "held", NOW)])
    await other.request("later")

    def ghosts() -> list[tuple[Any, ...]]:
        tables = contents(database)
        return [row for table in tables for row in tables[table] if row[0] in names]

    before = ghosts()
    await one.register([first_in(NOW, "new")])
    for run_no in range(2):
        runs = await one.claim([after(run_no, delay=NOW), after(run_no, "new", NOW)])
        await clock.advance(LEASE - SECOND)
        await one.heartbeat(runs)
        await one.finish([ok(run) for run in runs])
        await one.look(["tick", "new"])
        await one.check_in()
    await one.forget("new")
    assert len(before) == 9
    assert ghosts() == before


def at_the_latest(delay: timedelta, first: timedelta = NOW) -> Registration:
    """`tick`, with a schedule by which it is due in so long at the latest."""
    return Registration("tick", lambda now: now + first, lambda now: now + delay, steady=True)


@pytest.mark.parametrize(
    ("due", "seen"), [(HOUR, MINUTE), (MINUTE + MICROSECOND, MINUTE), (MINUTE, MINUTE), (NOW, NOW)]
)
async def test_no_job_is_due_later_than_its_schedule_can_mean(
    database: Database, clock: FakeClock, due: timedelta, seen: timedelta
) -> None:
    """Its row may be of an older version of the code, or of before the wall clock was set back."""
    older, newer = sql_store(database, clock, "older"), sql_store(database, clock, "newer")
    await older.register([at_the_latest(DAY, first=due)])
    [look] = await newer.register([at_the_latest(MINUTE)])
    assert look.delay == seen
    assert await delay_of(older) == seen


async def test_each_look_sees_to_that(one: SqlStore, clock: FakeClock) -> None:
    """Here, after the wall clock was set back by a week. It is changed once, not at each look."""
    clock.step(days=-7)
    assert await delay_of(one) == DAY
    await clock.advance(MINUTE)
    assert await delay_of(one) == DAY - MINUTE


async def test_a_look_that_finds_all_well_only_reads(one: SqlStore, database: Database) -> None:
    """It waits for no writer, and no writer for it."""
    statements = list[str]()
    with on_each_statement(database, statements.append):
        assert await delay_of(one) == NOW
    assert statements == []


async def test_each_end_of_a_run_sees_to_that(one: SqlStore) -> None:
    """What the next look would change, it changes."""
    claimed = await claim(one, delay=7 * DAY)
    ([look], _) = await one.finish([ok(claimed)])
    assert look.delay == DAY


async def test_two_versions_with_different_intervals_run_side_by_side(
    database: Database, clock: FakeClock
) -> None:
    """As db-scheduler's tests of a rolling update: whichever claims, the shorter interval holds as
    soon as its version looks, and neither puts off what the other has set."""
    slow, fast = sql_store(database, clock, "slow"), sql_store(database, clock, "fast")
    await slow.register([at_the_latest(HOUR)])
    await fast.register([at_the_latest(MINUTE)])
    await slow.finish([ok(await claim(slow, delay=HOUR))])
    assert await delay_of(slow) == HOUR
    assert await delay_of(fast) == MINUTE
    assert await delay_of(slow) == MINUTE
    await clock.advance(MINUTE)
    await fast.finish([ok(await claim(fast, 1, MINUTE))])
    assert await delay_of(slow) == MINUTE


async def test_a_lease_that_is_renewed_during_a_look_holds(
    one: SqlStore, database: Database, clock: FakeClock
) -> None:
    """A look from before that moment would find that it holds for longer than can be true. On
    Postgres it may see the lease as it was when the read began."""
    claimed = await claim(one)

    def renew(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "cron_job" in statement:
            clock.step(MICROSECOND)
            asyncio.run(one.heartbeat([claimed]))

    event.listen(database._read_engine, "before_cursor_execute", renew)
    assert LEASE - MICROSECOND <= (await look_at(one)).held_for <= LEASE


async def test_a_job_that_was_forgotten_is_new(one: SqlStore, two: SqlStore) -> None:
    """Where code has it, the next look makes its row anew."""
    await one.finish([ok(await claim(one))])
    await two.forget("tick")
    assert await one.claim([after(1)]) == []
    look = await look_at(one)
    assert (look.run_no, look.delay) == (0, NOW)
    assert (await claim(one)).run_no == 1


async def test_the_end_of_a_run_of_a_forgotten_job_makes_it_anew(
    one: SqlStore, two: SqlStore, clock: FakeClock
) -> None:
    """It says nothing about the new one."""
    claimed = await claim(one)
    await clock.advance(LEASE)
    await two.forget("tick")
    ([look], _) = await one.finish([failed(claimed)])
    assert (look.run_no, look.delay) == (0, NOW)
    assert await one.history("tick") == []


NAMES = ["tick", "new"]


@pytest.mark.parametrize("year", [1969, 2400])
async def test_a_clock_that_was_wrong_leaves_no_job_stuck(
    one: SqlStore, two: SqlStore, clock: FakeClock, year: int
) -> None:
    """In that year all goes its way; set right again, what it has left holds nobody up."""
    error = datetime(year, 7, 1, tzinfo=UTC) - clock.now()
    clock.step(error)
    await one.register([first_in(NOW, "new")])
    for run_no in range(2):
        claimed = await one.claim([replace(after(run_no, name), forced=True) for name in NAMES])
        assert [run.started_at for run in claimed] == [clock.now()] * 2
        assert (await look_at(one, "new")).held_for == LEASE
        assert await two.claim([after(run_no + 1)]) == []
        await clock.advance(SECOND)
        assert await one.heartbeat(claimed) == {"tick": True, "new": True}
        if run_no == 0:
            await one.finish([ok(run) for run in claimed])
    await one.request("tick")
    await one.check_in()
    clock.step(-error)
    for look in await two.register([first_in(NOW, name) for name in NAMES]):
        assert (look.run_no, look.held_for) == (2, NOW)
        assert look.delay <= DAY
    assert len(await two.processes()) == 1
    await clock.advance(DAY)
    claimed = await two.claim([after(2, name) for name in NAMES])
    assert [run.name for run in claimed] == NAMES
    for name in NAMES:
        outcomes = [run.outcome for run in await two.history(name)]
        assert outcomes == ["ok", "abandoned", None]


# The history


async def test_runs_are_remembered_for_seven_days(
    one: SqlStore, database: Database, clock: FakeClock
) -> None:
    """But for the last fifty, which are remembered however old they are."""
    week, older = timedelta(days=7), timedelta(days=7) + MICROSECOND
    await fill_history(database, clock, {98: older, 99: older, 100: week, 101: older, 149: week})
    await claim(one, 149)
    assert [run.run_no for run in await one.history("tick")] == [100, 101, 149, 150]


async def test_up_to_two_thousand_runs_are_remembered(
    one: SqlStore, database: Database, clock: FakeClock
) -> None:
    """However young the others are."""
    await fill_history(database, clock, dict.fromkeys(range(1, 2050), NOW))
    await claim(one, 2049)
    assert [run.run_no for run in await one.history("tick")] == list(range(51, 2051))


async def test_what_is_remembered_of_other_jobs_stays(
    one: SqlStore, database: Database, clock: FakeClock
) -> None:
    """Each has as many runs as its own number says."""
    await one.register([first_in(NOW, "other")])
    await one.finish([ok(run) for run in await one.claim([after(0, "other")])])
    await clock.advance(8 * DAY)
    await fill_history(database, clock, {149: NOW})
    await claim(one, 149)
    assert len(await one.history("other")) == 1


async def fill_history(database: Database, clock: FakeClock, ages: dict[int, timedelta]) -> None:
    """Let `tick` have had these runs, so long ago. The one of the highest number was its last."""
    rows = [
        {"run_no": run_no, "at": to_microseconds(clock.now() - age)} for run_no, age in ages.items()
    ]
    insert = text("INSERT INTO cron_run VALUES ('tick', :run_no, 0, :at, 0, 'ok', '', '', '')")
    await database.write(lambda connection: connection.execute(insert, rows))
    update = text("UPDATE cron_job SET run_no = :run_no WHERE name = 'tick'")
    await database.write(lambda connection: connection.execute(update, {"run_no": max(ages)}))


# Processes


async def test_a_process_that_checks_in_is_known(one: SqlStore, clock: FakeClock) -> None:
    """When it was first seen, when last, and that it has not stopped."""
    start = clock.now()
    await one.check_in()
    await clock.advance(MINUTE)
    await one.check_in()
    record = ProcessRecord("one", start, start + MINUTE, None, None, None)
    assert await one.processes() == [record]


async def test_a_process_that_checks_out_has_stopped(
    one: SqlStore, two: SqlStore, clock: FakeClock
) -> None:
    """It is remembered, and no other has."""
    await one.check_in()
    await clock.advance(MINUTE)
    await two.check_in()
    await one.check_out()
    stopped = [(each.owner, each.stopped_at) for each in await one.processes()]
    assert stopped == [("one", clock.now()), ("two", None)]


async def test_the_last_absence_of_a_process_is_remembered(one: SqlStore, clock: FakeClock) -> None:
    """From when to when it did not run; it is not forgotten by checking in."""
    gaps = [(clock.now() - hours * HOUR, clock.now() - hours * MINUTE) for hours in (2, 1)]
    for absence in (*gaps, None):
        await one.check_in(absence)
    [record] = await one.processes()
    assert (record.absent_from, record.absent_until) == gaps[-1]


@pytest.mark.parametrize(("late", "owners"), [(NOW, ["one", "two"]), (MICROSECOND, ["two"])])
async def test_a_process_that_is_not_seen_is_forgotten(
    one: SqlStore, two: SqlStore, clock: FakeClock, late: timedelta, owners: list[str]
) -> None:
    """After seven days, by the next one that checks in."""
    await one.check_in()
    await clock.advance(7 * DAY + late)
    await two.check_in()
    assert [record.owner for record in await two.processes()] == owners


# A database that is away


def pragma(database: Database, setting: str) -> Any:
    """Set something for the one connection that writes, or ask for it."""
    with closing(database._write_engine.raw_connection()) as connection:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA {setting}")
        return (cursor.fetchone() or [None])[0]


@contextmanager
def locked(database: Database) -> Iterator[None]:
    """Another program writes, for longer than a statement waits."""
    pragma(database, "busy_timeout = 0")
    with closing(sqlite3.connect(path_of(database), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def full(database: Database) -> Iterator[None]:
    """The file cannot grow."""
    most = pragma(database, "max_page_count")
    pragma(database, f"max_page_count = {pragma(database, 'page_count')}")
    yield
    pragma(database, f"max_page_count = {most}")


@contextmanager
def read_only(database: Database) -> Iterator[None]:
    """It cannot be written."""
    pragma(database, "query_only = ON")
    yield
    pragma(database, "query_only = OFF")


@contextmanager
def deleted(database: Database) -> Iterator[None]:
    """The file has no name any more; then somebody gives it back."""
    away = path_of(database).with_name("away")
    path_of(database).rename(away)
    yield
    away.replace(path_of(database))


@contextmanager
def replaced(database: Database) -> Iterator[None]:
    """Another file is in its place."""
    with deleted(database):
        shutil.copy(path_of(database).with_name("away"), path_of(database))
        yield


@on_sqlite
@pytest.mark.parametrize(
    ("away", "reason"),
    [
        (locked, "database is locked"),
        (full, "database or disk is full"),
        (read_only, "attempt to write a readonly database"),
        (deleted, "{path} is gone: deleted or replaced while in use"),
        (replaced, "{path} is gone: deleted or replaced while in use"),
    ],
)
async def test_a_database_that_is_away_is_told_from_a_mistake(
    one: SqlStore,
    database: Database,
    path: Path,
    away: Callable[[Database], AbstractContextManager[None]],
    reason: str,
) -> None:
    """It says why in a line, nothing is written, and later all is well again."""
    before, many = contents(database), [first_in(NOW, f"{number:0>100}") for number in range(100)]
    with away(database):
        with pytest.raises(StoreUnavailable) as unavailable:
            await one.register(many)
        assert str(unavailable.value) == reason.format(path=path)
    assert contents(database) == before
    assert len(await one.register(many)) == 100


async def test_a_database_without_its_tables_is_away(one: SqlStore, database: Database) -> None:
    """Reads say so like writes."""
    await database.write(lambda connection: connection.exec_driver_sql("DROP TABLE cron_job"))
    asks: list[Callable[[], Awaitable[Any]]] = [
        lambda: one.look(["tick"]),
        lambda: one.history("tick"),
        lambda: one.request("tick"),
    ]
    for ask in asks:
        with pytest.raises(
            StoreUnavailable, match=r'no such table: cron_job|"cron_job" does not exist'
        ):
            await ask()


async def test_a_row_that_cannot_be_written_is_no_outage(
    one: SqlStore, database: Database, clock: FakeClock
) -> None:
    """A run of that number is there already: that is a fault of one job, and nothing changes."""
    await fill_history(database, clock, {1: NOW, 0: NOW})
    await database.write(
        lambda connection: connection.exec_driver_sql("UPDATE cron_job SET run_no = 0")
    )
    before = contents(database)
    with pytest.raises(IntegrityError, match=r"(?i)unique"):
        await one.claim([after(0)])
    assert contents(database) == before


async def test_a_mistake_is_no_outage(one: SqlStore, database: Database) -> None:
    """Nor is a database that was closed."""
    with pytest.raises(ProgrammingError):
        await one.request(object())  # type: ignore[arg-type]
    database.close()
    with pytest.raises(RuntimeError, match="is closed"):
        await one.claim([after(0)])
    with pytest.raises(RuntimeError, match="is closed"):
        await one.look(["tick"])
