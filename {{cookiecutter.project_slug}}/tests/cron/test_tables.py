"""The engine's tables: how they are made, how they are upgraded, and what is left alone."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from app.cron.database import Database, DatabaseError
from app.cron.tables import PREFIX, STEPS, check_version, upgrade_tables
from support import FakeClock
from support.stores import NOW, claim, compete, contents, first_in, ok, sql_store


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database without a table."""
    with closing(Database(tmp_path / "app.db")) as database:
        database.check()
        yield database


def upgrade(database: Database) -> tuple[int, int]:
    """What a process does at its start; gives the version that it leaves."""
    database.write_here(upgrade_tables)
    return database.read_here(check_version)


def execute(database: Database, *statements: str) -> None:
    """Change something behind the engine's back."""
    with closing(sqlite3.connect(database.path)) as other, other:
        for statement in statements:
            other.execute(statement)


def schema(database: Database) -> list[tuple[Any, ...]]:
    """What the database consists of."""
    with closing(sqlite3.connect(database.path)) as other:
        return other.execute("SELECT name, sql FROM sqlite_master ORDER BY 1").fetchall()


def set_version(database: Database, version: str) -> None:
    """Let code of that version have made the tables."""
    execute(database, "DELETE FROM cron_schema", f"INSERT INTO cron_schema VALUES ({version})")  # noqa: S608 -- two numbers of ours


# Making


def test_there_are_none_at_first(database: Database) -> None:
    """To ask makes nothing."""
    assert database.read_here(check_version) == (0, 0)
    assert schema(database) == []


def test_they_are_made(database: Database) -> None:
    """At the version of this code, and each has the prefix by which Alembic knows to leave it."""
    assert upgrade(database) == max(STEPS)
    names = [name.removeprefix("sqlite_autoindex_") for name, _ in schema(database)]
    assert names
    assert all(name.startswith(PREFIX) for name in names)


async def test_what_is_there_stays(database: Database, clock: FakeClock) -> None:
    """The second start changes nothing."""
    upgrade(database)
    store = sql_store(database, clock)
    await store.register([first_in(NOW)])
    await claim(store)
    before = schema(database), contents(database.path)
    upgrade(database)
    assert (schema(database), contents(database.path)) == before


def test_processes_that_start_together_make_them_once(database: Database) -> None:
    """Four at the same moment, on a new file: none fails, and nothing is there twice."""
    compete(database.path, database.path.with_name("counter"), processes=4, runs=0)
    assert contents(database.path)["cron_schema"] == [max(STEPS)]


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
    [row] = contents(database.path)["cron_job"]
    assert (row[0], row[-1]) == ("tick", "blue")
    execute(database, "UPDATE cron_job SET colour = 'green'")
    assert upgrade(database) == (1, 2)
    [row] = contents(database.path)["cron_job"]
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
    with pytest.raises(OperationalError, match="syntax error"):
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
    assert await store.heartbeat([claimed]) == set()
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
    before = schema(database), contents(database.path)
    with pytest.raises(DatabaseError) as error:
        start(database)
    assert str(error.value) == (
        "the cron tables are of version 2.3, this code is made for 1.0: "
        "run the newer code that has upgraded them"
    )
    assert (schema(database), contents(database.path)) == before
