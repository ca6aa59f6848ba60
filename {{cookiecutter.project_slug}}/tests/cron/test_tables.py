"""The engine's tables: how they are made, how they are upgraded, and what is left alone."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from app.cron.database import Database, DatabaseError
from app.cron.tables import PREFIX, STEPS, check_version, upgrade_tables
from app.db import database_at
from support import FakeClock
from support.databases import TABLES, contents, query, schema
from support.stores import NOW, claim, compete, first_in, ok, sql_store


@pytest.fixture
def database(url: URL) -> Iterator[Database]:
    """A database without a table."""
    with closing(database_at(url)) as database:
        database.check()
        yield database


def upgrade(database: Database) -> tuple[int, int]:
    """What a process does at its start; gives the version that it leaves."""
    database.write_here(upgrade_tables)
    return database.read_here(check_version)


def execute(database: Database, *statements: str) -> None:
    """Change something behind the engine's back."""
    for statement in statements:
        query(database, statement)


def set_version(database: Database, version: str) -> None:
    """Let code of that version have made the tables."""
    execute(database, "DELETE FROM cron_schema", f"INSERT INTO cron_schema VALUES ({version})")  # noqa: S608 -- two numbers of ours


# Making


def test_there_are_none_at_first(database: Database) -> None:
    """To ask makes nothing."""
    assert database.read_here(check_version) == (0, 0)
    assert schema(database) == {}


def test_they_are_made(database: Database) -> None:
    """At the version of this code, and each has the prefix by which Alembic knows to leave it."""
    assert upgrade(database) == max(STEPS)
    assert set(schema(database)) == set(TABLES)
    assert all(name.startswith(PREFIX) for name in TABLES)


async def test_what_is_there_stays(database: Database, clock: FakeClock) -> None:
    """The second start changes nothing."""
    upgrade(database)
    store = sql_store(database, clock)
    await store.register([first_in(NOW)])
    await claim(store)
    before = schema(database), contents(database)
    upgrade(database)
    assert (schema(database), contents(database)) == before


def test_processes_that_start_together_make_them_once(database: Database, tmp_path: Path) -> None:
    """Four at the same moment, on a new file: none fails, and nothing is there twice."""
    compete(database, tmp_path / "counter", processes=4, runs=0)
    assert contents(database)["cron_schema"] == [max(STEPS)]


# Upgrading


LATER = {
    (1, 2): ["UPDATE cron_job SET colour = 'blue'"],
    (1, 1): ["ALTER TABLE cron_job ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'"],
}


async def test_tables_of_an_older_version_are_upgraded(
    database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step by step, each once, in the order of the versions; what is in them is kept."""
    upgrade(database)
    await sql_store(database, clock).register([first_in(NOW)])
    for version, statements in LATER.items():
        monkeypatch.setitem(STEPS, version, statements)
    assert upgrade(database) == (1, 2)
    [row] = contents(database)["cron_job"]
    assert (row[0], row[-1]) == ("tick", "blue")
    execute(database, "UPDATE cron_job SET colour = 'green'")
    assert upgrade(database) == (1, 2)
    [row] = contents(database)["cron_job"]
    assert row[-1] == "green"


@pytest.mark.parametrize("made", [False, True], ids=["on a new file", "on tables"])
def test_a_step_that_fails_leaves_all_as_it_was(
    database: Database, monkeypatch: pytest.MonkeyPatch, made: bool
) -> None:
    """The good steps before it too."""
    if made:
        upgrade(database)
    before = schema(database), database.read_here(check_version)
    monkeypatch.setitem(STEPS, (1, 1), LATER[1, 1])
    monkeypatch.setitem(STEPS, (1, 2), [*LATER[1, 2], "no SQL"])
    with pytest.raises(DBAPIError, match="syntax error"):
        upgrade(database)
    assert (schema(database), database.read_here(check_version)) == before


# Tables of newer code


async def test_a_newer_minor_version_is_left_alone(database: Database, clock: FakeClock) -> None:
    """It has only added, with defaults: this code works on beside the newer one."""
    upgrade(database)
    set_version(database, "1, 9")
    execute(
        database,
        "ALTER TABLE cron_job ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'",
        "ALTER TABLE cron_run ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'",
        "CREATE TABLE cron_colour (colour TEXT)",
    )
    before = schema(database)
    assert upgrade(database) == (1, 9)
    assert schema(database) == before
    store = sql_store(database, clock)
    await store.register([first_in(NOW)])
    claimed = await claim(store)
    await clock.advance(timedelta(seconds=1))
    assert await store.heartbeat([claimed]) == {"tick": True}
    await store.finish([ok(claimed)])
    [job], [run] = await store.jobs(), await store.history("tick")
    assert job.last_run == run


@pytest.mark.parametrize(
    "start",
    [lambda it: it.read_here(check_version), lambda it: it.write_here(upgrade_tables)],
    ids=["check", "upgrade"],
)
def test_a_newer_major_version_is_refused(
    database: Database, start: Callable[[Database], object]
) -> None:
    """In one line that says what to do, before anything is done."""
    upgrade(database)
    set_version(database, "2, 3")
    before = schema(database), contents(database)
    with pytest.raises(DatabaseError) as error:
        start(database)
    assert str(error.value) == (
        "the cron tables are of version 2.3, this code is made for 1.0: "
        "run the newer code that has upgraded them"
    )
    assert (schema(database), contents(database)) == before
