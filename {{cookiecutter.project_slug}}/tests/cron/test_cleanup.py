"""The deletion of many rows: on a real file, with a real claim, by a watch that the test sets."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, event, exists
from starlette.datastructures import State

from app.cron import JobContext
from app.cron.cleanup import delete_in_chunks
from app.cron.clock import SystemClock
from app.cron.database import Database
from app.cron.fence import LeaseLost
from app.cron.sqlite import BUSY_SECONDS, CACHE_KIB, CHECKPOINT_PAGES
from support import FakeClock, on_postgres, on_sqlite, query
from support.stores import (
    LEASE,
    NOW,
    claim,
    first_in,
    on_each_statement,
    sql_store,
)

# One statement deletes so many rows, one transaction has at most so many statements.
STEP, STEPS_MAX = 200, 20

# Other processes have their turn after so many rows.
BREAK_ROWS = 5_000


def table(*key: str, rowid: bool = True) -> Table:
    """A table with this primary key. Its other column is indexed: what is over has a number > 0."""
    return Table(
        "things",
        MetaData(),
        Column("number", Integer, primary_key="number" in key, autoincrement=False),
        Column("word", String, primary_key="word" in key),
        Column("over", Integer, index=True),
        sqlite_with_rowid=rowid,
    )


THINGS = table("word")

TABLES = {
    "text": THINGS,
    "number": table("number"),
    "two columns": table("number", "word"),
    "no key": table(),
    "text, without rowid": table("word", rowid=False),
    "two columns, without rowid": table("number", "word", rowid=False),
}

each_sqlite_table = pytest.mark.parametrize(
    ("url", "things"),
    [pytest.param("sqlite", things, id=name) for name, things in TABLES.items()],
    indirect=["url"],
)

each_table = pytest.mark.parametrize(
    ("url", "things"),
    [
        pytest.param(database, things, id=f"{name}, {database}")
        for name, things in TABLES.items()
        for database in ("sqlite", "postgres")
        if database == "sqlite" or name in ("text", "number", "two columns")
    ],
    indirect=["url"],
)


class Watch(SystemClock):
    """A clock that stands still, unless somebody sleeps or something is said to take time."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


@pytest.fixture
def watch() -> Watch:
    """The clock of the run."""
    return Watch()


def fill(database: Database, things: Table, *, over: int, others: int = 0) -> None:
    """Make the table, and so many rows in it. The words are in the opposite order of the rows."""
    count = over + others
    rows = [
        {"number": row, "word": f"{count - row:06}", "over": count - row if row < over else -row}
        for row in range(count)
    ]

    def fill(connection: Connection) -> None:
        things.create(connection)
        if rows:
            connection.execute(things.insert(), rows)

    database.write_here(fill)


async def begin_run(database: Database, clock: FakeClock, watch: Watch) -> JobContext:
    """The context of a run that has been claimed."""
    store = sql_store(database, clock)
    await store.register([first_in(NOW)])
    claimed = await claim(store, delay=NOW)
    return JobContext(
        name=claimed.name,
        clock=watch,
        random=Random(0),
        run_no=claimed.run_no,
        state=State(),
        fence=store.fence(claimed),
    )


def left(database: Database, things: Table) -> list[int]:
    """The numbers of the rows that are in the table."""
    return sorted(database.read_here(lambda it: [*it.execute(things.select()).scalars()]))


@contextmanager
def taking(
    database: Database, watch: Watch, *, step: float = 0.0, commit: float = 0.0
) -> Iterator[list[int]]:
    """Say how many seconds each step takes, and each commit. Gives how many steps were in each
    transaction so far."""
    steps = [0]

    def take(statement: str) -> None:
        if statement.startswith("DELETE"):
            watch.seconds += step
            steps[-1] += 1
        elif statement.startswith("UPDATE cron_job SET owner = owner"):  # the last one
            watch.seconds += commit
            steps.append(0)

    with on_each_statement(database, take):
        yield steps
    steps.pop()


@contextmanager
def each_plan(database: Database, verb: str) -> Iterator[list[str]]:
    """What SQLite plans to do in each such statement about the table."""
    plans: list[str] = []

    def explain(connection: Connection, _: Any, statement: str, parameters: Any, *__: Any) -> None:
        if statement.startswith(verb) and "things" in statement:
            driver: Any = connection.connection.driver_connection
            plan = driver.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            plans.append("; ".join(row[3] for row in plan))

    for engine in (database._read_engine, database._write_engine):
        event.listen(engine, "before_cursor_execute", explain)
    yield plans


def after_reading(
    monkeypatch: pytest.MonkeyPatch, database: Database, call: Callable[[list[Any]], object]
) -> None:
    """Call it each time keys have been read, with these."""
    read = database.read

    async def read_and_call(function: Callable[[Connection], Any]) -> Any:
        result = await read(function)
        if isinstance(result, list):
            call(result)
        return result

    monkeypatch.setattr(database, "read", read_and_call)


def count_checkpoints(
    monkeypatch: pytest.MonkeyPatch, database: Database, watch: Watch, *, seconds: float = 0.0
) -> list[float]:
    """When checkpoints began so far. Instead of making them, so much time passes."""
    began: list[float] = []

    async def checkpoint() -> None:
        began.append(watch.seconds)
        watch.seconds += seconds

    monkeypatch.setattr(database, "checkpoint", checkpoint)
    return began


async def in_which_order(
    database: Database, clock: FakeClock, watch: Watch, things: Table, column: str
) -> list[int]:
    """Delete all rows; in which order they went, by this column."""

    def record(connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE gone (value)")
        trigger = f"BEGIN INSERT INTO gone VALUES (old.{column}); END"  # noqa: S608 -- a name of ours
        connection.exec_driver_sql(f"CREATE TRIGGER record AFTER DELETE ON things {trigger}")

    database.write_here(record)
    context = await begin_run(database, clock, watch)
    await delete_in_chunks(context, database, things, things.c.over > 0)
    return database.read_here(
        lambda it: [*it.exec_driver_sql("SELECT value FROM gone ORDER BY rowid").scalars()]
    )


# What is deleted


def keep(database: Database, number: int) -> None:
    """Let the database ignore it when that row is to be deleted."""
    action = "BEGIN SELECT RAISE(IGNORE); END"
    if database.url.get_backend_name() != "sqlite":
        query(
            database,
            "CREATE FUNCTION ignore() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        )
        action = "EXECUTE FUNCTION ignore()"
    query(
        database,
        f"CREATE TRIGGER keep BEFORE DELETE ON things FOR EACH ROW WHEN (old.number = {number}) "
        f"{action}",
    )


@each_table
@pytest.mark.parametrize("over", [0, 1, STEP - 1, STEP, STEP + 1, 3 * STEP])
async def test_what_meets_the_condition_is_deleted(
    database: Database, clock: FakeClock, watch: Watch, things: Table, over: int
) -> None:
    """And nothing else, whatever the table's key. It says how many rows that were."""
    fill(database, things, over=over, others=500)
    context = await begin_run(database, clock, watch)
    assert await delete_in_chunks(context, database, things, things.c.over > 0) == over
    assert left(database, things) == [*range(over, over + 500)]


@on_postgres
async def test_a_table_without_a_key_is_refused(
    database: Database, clock: FakeClock, watch: Watch
) -> None:
    """By its name: Postgres has no key of its own that would stay the same."""
    things = TABLES["no key"]
    fill(database, things, over=1)
    context = await begin_run(database, clock, watch)
    with pytest.raises(
        ValueError, match=r"^things has no primary key, by which to delete its rows$"
    ):
        await delete_in_chunks(context, database, things, things.c.over > 0)


async def test_where_nothing_is_to_be_deleted_nothing_is_written(
    database: Database, clock: FakeClock, watch: Watch
) -> None:
    """Finding that out takes no lock."""
    fill(database, THINGS, over=0, others=10)
    context = await begin_run(database, clock, watch)
    with taking(database, watch) as steps:
        assert await delete_in_chunks(context, database, THINGS, THINGS.c.over > 0) == 0
    assert steps == []


async def test_the_condition_may_ask_other_tables(
    database: Database, clock: FakeClock, watch: Watch
) -> None:
    """As for rows that nobody refers to any more."""
    fill(database, THINGS, over=300, others=5)
    users = Table("users", MetaData(), Column("thing", Integer))

    def refer(connection: Connection) -> None:
        users.create(connection)
        connection.execute(users.insert(), [{"thing": 298}, {"thing": 301}])

    database.write_here(refer)
    context = await begin_run(database, clock, watch)
    unused = ~exists().where(users.c.thing == THINGS.c.number)
    assert await delete_in_chunks(context, database, THINGS, unused) == 303
    assert left(database, THINGS) == [298, 301]


async def test_a_row_that_has_changed_meanwhile_stays(
    database: Database, clock: FakeClock, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It met the condition when its key was read, and does not when its turn comes. So does a new
    row that has got the key of one that is gone."""
    fill(database, THINGS, over=5)

    def change(keys: list[Any]) -> None:
        if not keys:
            return
        query(database, "UPDATE things SET over = -1 WHERE number = 1")
        query(database, "DELETE FROM things WHERE number = 4")
        query(database, "INSERT INTO things VALUES (9, 'new', -1)")
        if database.url.get_backend_name() == "sqlite":
            assert query(database, "SELECT max(rowid) FROM things") == [(5,)]

    after_reading(monkeypatch, database, change)
    context = await begin_run(database, clock, watch)
    assert await delete_in_chunks(context, database, THINGS, THINGS.c.over > 0) == 3
    assert left(database, THINGS) == [1, 9]


@each_table
@pytest.mark.parametrize("number", [0, 2, 4])
async def test_a_row_that_cannot_be_deleted_is_tried_once(
    database: Database, clock: FakeClock, watch: Watch, things: Table, number: int
) -> None:
    """Or there would be no end. It does not count."""
    fill(database, things, over=5)
    keep(database, number)
    tries: list[str] = []

    def try_once(statement: str) -> None:
        if statement.startswith("DELETE"):
            assert not tries
            tries.append(statement)

    context = await begin_run(database, clock, watch)
    with on_each_statement(database, try_once):
        assert await delete_in_chunks(context, database, things, things.c.over > 0) == 4
    assert left(database, things) == [number]


@each_sqlite_table
async def test_keys_are_read_by_the_page(
    database: Database,
    clock: FakeClock,
    watch: Watch,
    things: Table,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many rows there are, so many keys are in memory, and none is forgotten."""
    monkeypatch.setattr("app.cron.cleanup.KEYS_MAX", 300)
    fill(database, things, over=700, others=1)
    pages: list[int] = []
    after_reading(monkeypatch, database, lambda keys: pages.append(len(keys)))
    context = await begin_run(database, clock, watch)
    assert await delete_in_chunks(context, database, things, things.c.over > 0) == 700
    assert pages == [300, 300, 100, 0]
    assert left(database, things) == [700]


# How SQLite does it


@on_sqlite
@pytest.mark.parametrize("name", [name for name in TABLES if "without" not in name])
async def test_rows_are_deleted_in_the_order_of_their_pages(
    database: Database, clock: FakeClock, watch: Watch, name: str
) -> None:
    """That is the order of their rowids, whatever the order of the primary key or of an index."""
    fill(database, TABLES[name], over=3 * STEP)
    order = await in_which_order(database, clock, watch, TABLES[name], "rowid")
    assert len(order) == 3 * STEP
    assert order == sorted(order)


@on_sqlite
async def test_without_rowids_the_pages_are_in_the_order_of_the_key(
    database: Database, clock: FakeClock, watch: Watch
) -> None:
    """Whatever the order of an index."""
    things = TABLES["two columns, without rowid"]
    fill(database, things, over=3 * STEP)
    assert await in_which_order(database, clock, watch, things, "number") == [*range(3 * STEP)]


@on_sqlite
async def test_rows_are_found_by_an_index(
    database: Database, clock: FakeClock, watch: Watch
) -> None:
    """Not by reading the whole table, in which most rows may be others."""
    fill(database, THINGS, over=1)
    context = await begin_run(database, clock, watch)
    with each_plan(database, "SELECT") as plans:
        await delete_in_chunks(context, database, THINGS, THINGS.c.over > 0)
    assert "USING COVERING INDEX ix_things_over (over>?)" in plans[0]


@on_sqlite
async def test_rows_are_deleted_by_their_keys(
    database: Database, clock: FakeClock, watch: Watch
) -> None:
    """What lies between them is not read: that may be most of the table."""
    fill(database, THINGS, over=STEP)
    context = await begin_run(database, clock, watch)
    with each_plan(database, "DELETE") as plans:
        await delete_in_chunks(context, database, THINGS, THINGS.c.over > 0)
    assert plans == ["SEARCH things USING INTEGER PRIMARY KEY (rowid=?)"]


@each_sqlite_table
@pytest.mark.parametrize("rows", [0, 100, 2_000])
async def test_the_table_is_not_read_for_each_step(
    database: Database, clock: FakeClock, watch: Watch, things: Table, rows: int
) -> None:
    """Nor is an index, even where statistics that are long out of date say that both are small."""
    fill(database, things, over=rows)
    database.write_here(lambda connection: connection.exec_driver_sql("ANALYZE"))
    database.write_here(lambda connection: things.drop(connection))
    fill(database, things, over=2 * STEP)
    context = await begin_run(database, clock, watch)
    with each_plan(database, "DELETE") as plans:
        await delete_in_chunks(context, database, things, things.c.over > 0)
    assert len(plans) == 2
    assert all("SEARCH" in plan and "PRIMARY KEY" in plan for plan in plans)


# When others have their turn


@pytest.mark.parametrize(("seconds", "steps"), [(0.0079, 2), (0.008, 1), (0.004, 2), (0.003, 3)])
async def test_a_transaction_ends_after_some_milliseconds(
    database: Database, clock: FakeClock, watch: Watch, seconds: float, steps: int
) -> None:
    """After eight of them it begins no further step."""
    fill(database, THINGS, over=6 * STEP)
    context = await begin_run(database, clock, watch)
    with taking(database, watch, step=seconds) as transactions:
        await delete_in_chunks(context, database, THINGS, THINGS.c.over > 0)
    assert transactions == [steps] * (6 // steps)


async def test_a_transaction_ends_though_the_clock_stands_still(
    database: Database, clock: FakeClock, watch: Watch
) -> None:
    """It has so many steps at most."""
    fill(database, THINGS, over=(STEPS_MAX + 1) * STEP)
    context = await begin_run(database, clock, watch)
    with taking(database, watch) as transactions:
        await delete_in_chunks(context, database, THINGS, THINGS.c.over > 0)
    assert transactions == [STEPS_MAX, 1]


async def test_others_have_their_turn_for_as_long_as_transactions_took(
    database: Database, clock: FakeClock, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When those are over 0.1 s in all. The checkpoint is part of their turn."""
    fill(database, THINGS, over=10 * STEP)
    checkpoints = count_checkpoints(monkeypatch, database, watch, seconds=1 / 16)
    context = await begin_run(database, clock, watch)
    with taking(database, watch, step=1 / 64, commit=1 / 64):
        await delete_in_chunks(context, database, THINGS, THINGS.c.over > 0)
    # After four transactions, and four more.
    assert checkpoints == [1 / 8, 3 / 8]
    assert watch.slept == [1 / 16, 1 / 16]


async def test_a_checkpoint_that_takes_long_is_turn_enough(
    database: Database, clock: FakeClock, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is added to it."""
    fill(database, THINGS, over=STEP)
    checkpoints = count_checkpoints(monkeypatch, database, watch, seconds=3)
    context = await begin_run(database, clock, watch)
    with taking(database, watch, step=1 / 8):
        await delete_in_chunks(context, database, THINGS, THINGS.c.over > 0)
    assert checkpoints == [1 / 8]
    assert watch.slept == [0.0]


@pytest.mark.parametrize(
    ("rows", "checkpoints"),
    [
        (BREAK_ROWS - 1, 0),
        (BREAK_ROWS, 1),
        (2 * STEPS_MAX * STEP + BREAK_ROWS - 1, 1),
        (2 * STEPS_MAX * STEP + BREAK_ROWS, 2),
        (4 * STEPS_MAX * STEP, 2),
    ],
)
async def test_the_log_is_emptied_after_so_many_rows(
    database: Database,
    clock: FakeClock,
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
    checkpoints: int,
) -> None:
    """However quick that was: a log that is too long is emptied by a commit."""
    fill(database, THINGS, over=rows)
    counted = count_checkpoints(monkeypatch, database, watch)
    context = await begin_run(database, clock, watch)
    await delete_in_chunks(context, database, THINGS, THINGS.c.over > 0)
    assert counted == [0.0] * checkpoints


# How it is ended, and what it says


async def test_it_stops_between_two_transactions(
    database: Database, clock: FakeClock, watch: Watch
) -> None:
    """When the run is asked to, it finishes what it is in, and says how much that was."""
    fill(database, THINGS, over=10 * STEP)
    context = await begin_run(database, clock, watch)

    def stop_in_the_third(statement: str) -> None:
        if statement.startswith("DELETE") and len(transactions) == 3:
            context.request_stop()

    steps = taking(database, watch, step=1 / 64)
    with steps as transactions, on_each_statement(database, stop_in_the_third):
        count = await delete_in_chunks(context, database, THINGS, THINGS.c.over > 0)
    assert transactions == [1, 1, 1]
    assert count == 3 * STEP
    assert len(left(database, THINGS)) == 7 * STEP
    assert context.stop_seen


async def test_a_deletion_that_is_complete_is_not_cut_short(
    database: Database, clock: FakeClock, watch: Watch
) -> None:
    """Though the run is asked to stop in its last transaction: there is nothing to stop."""
    fill(database, THINGS, over=STEP)
    context = await begin_run(database, clock, watch)
    with on_each_statement(database, lambda _: context.request_stop()):
        await delete_in_chunks(context, database, THINGS, THINGS.c.over > 0)
    assert not context.stop_seen


async def test_a_run_that_has_lost_its_lease_deletes_nothing_more(
    database: Database, clock: FakeClock, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each transaction ends with the fence, and LeaseLost ends the deletion."""
    fill(database, THINGS, over=4 * STEP)
    context = await begin_run(database, clock, watch)

    async def claim_elsewhere() -> None:
        await clock.advance(LEASE)
        await claim(sql_store(database, clock, "another"), context.run_no)

    monkeypatch.setattr(database, "checkpoint", claim_elsewhere)
    with taking(database, watch, step=1 / 8) as transactions, pytest.raises(LeaseLost):
        await delete_in_chunks(context, database, THINGS, THINGS.c.over > 0)
    assert transactions == [1, 1]  # of which the second is rolled back
    assert len(left(database, THINGS)) == 3 * STEP


async def test_a_long_deletion_tells_how_far_it_is(
    database: Database,
    clock: FakeClock,
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each ten seconds, at the end of a transaction; a short one says nothing."""
    fill(database, THINGS, over=5 * STEP)
    count_checkpoints(monkeypatch, database, watch)
    context = await begin_run(database, clock, watch)
    # Each takes 2.5 s, and the turn of others after it as long.
    with taking(database, watch, step=2.5):
        await delete_in_chunks(context, database, THINGS, THINGS.c.over > 0)
    assert caplog.messages == ["tick run 1: 600 deleted so far", "tick run 1: 1000 deleted so far"]


# The log of the database


@on_sqlite
async def test_after_a_checkpoint_the_log_begins_anew(database: Database, path: Path) -> None:
    """Though another process writes all the time: what is written next takes the place of what is
    in the file by now."""
    database.write_here(write_much)
    size = log_of(path).stat().st_size
    with closing(sqlite3.connect(path, check_same_thread=False)) as other:
        other.execute("CREATE TABLE others (row)")

        def write_elsewhere(_: Any, __: Any, statement: str, *___: Any) -> None:
            if "PASSIVE" in statement:
                other.execute("INSERT INTO others VALUES (1)")
                other.commit()

        event.listen(database._read_engine, "after_cursor_execute", write_elsewhere)
        await database.checkpoint()
        assert other.execute("SELECT count(*) FROM others").fetchall() == [(2,)]
    grown = log_of(path).stat().st_size
    assert size < grown < 1.1 * size
    database.write_here(write_much)
    assert log_of(path).stat().st_size == grown


@on_sqlite
async def test_a_checkpoint_takes_what_a_reader_has_held(database: Database, path: Path) -> None:
    """A reader keeps what is newer in the log. When it leaves in time, that goes into the file."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM cron_job").fetchall()
        database.write_here(write_much)
        size = log_of(path).stat().st_size

        def leave(_: Any, __: Any, statement: str, *___: Any) -> None:
            if "busy_timeout = 0" in statement:  # before its last try
                reader.execute("ROLLBACK")

        event.listen(database._read_engine, "after_cursor_execute", leave)
        await database.checkpoint()
    database.write_here(write_much)
    assert log_of(path).stat().st_size == size


@on_sqlite
async def test_a_checkpoint_waits_for_no_reader(database: Database, path: Path) -> None:
    """It would keep others from writing for as long."""
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM cron_job").fetchall()
        database.write_here(write_much)
        began = time.monotonic()
        await database.checkpoint()
        assert time.monotonic() - began < BUSY_SECONDS - 1


@on_sqlite
async def test_after_a_checkpoint_readers_wait_as_before(database: Database) -> None:
    """For a lock that they have to wait for."""
    assert await database.read(pragma("busy_timeout")) == BUSY_SECONDS * 1_000
    await database.checkpoint()
    assert await database.read(pragma("busy_timeout")) == BUSY_SECONDS * 1_000


@on_sqlite
async def test_a_commit_seldom_empties_the_log(database: Database) -> None:
    """It takes long, so the log holds what a deletion writes between two checkpoints."""
    assert await database.write(pragma("wal_autocheckpoint")) == CHECKPOINT_PAGES


@on_sqlite
async def test_the_writer_remembers_the_pages_that_it_needs_again(database: Database) -> None:
    """SQLite's own 2 MB are not enough for the indexes of a large table."""
    assert await database.write(pragma("cache_size")) == -CACHE_KIB


def pragma(name: str) -> Callable[[Connection], Any]:
    """Read a setting of SQLite's."""
    return lambda connection: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()


def write_much(connection: Connection) -> None:
    """Write some hundred pages, the same each time."""
    connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS much (row)")
    connection.exec_driver_sql("DELETE FROM much")
    connection.exec_driver_sql("INSERT INTO much VALUES (randomblob(1000000))")


def log_of(path: Path) -> Path:
    """The file of the log."""
    return path.with_name(f"{path.name}-wal")
