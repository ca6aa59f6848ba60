"""Databases in a test: a new one for it, on SQLite and on Postgres, and a look from outside."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, inspect, make_url
from sqlalchemy.pool import NullPool

from app.cron.database import Database
from app.cron.tables import lock_schema, upgrade_tables
from app.db import MIGRATIONS, database_at

from .process import REAL_SECONDS_MAX

TABLES = ("cron_schema", "cron_job", "cron_run", "cron_process")

on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
"""For a test of what only SQLite has, or which looks no further than the screen. The others run on
both databases."""

on_postgres = pytest.mark.parametrize("url", ["postgres"], indirect=True)
"""For a test of what only Postgres has."""


def empty_url(request: pytest.FixtureRequest) -> URL:
    """Where an empty database is, of the kind that the fixture has as its parameter."""
    if request.param == "sqlite":
        return make_url(f"sqlite:///{request.getfixturevalue('tmp_path')}/app.db")
    url: URL = request.getfixturevalue("postgres")
    disconnect(url)
    # A new database would take ten times as long.
    query(url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return url


class HasUrl(Protocol):
    """A Database, or the Settings."""

    @property
    def url(self) -> URL:
        """Where the database is."""


Subject = HasUrl | URL


def url_of(subject: Subject) -> URL:
    """Where the database is."""
    return subject if isinstance(subject, URL) else subject.url


@contextmanager
def cron_database(url: URL) -> Iterator[Database]:
    """A database that has the engine's tables."""
    with closing(database_at(url)) as database:
        database.check()
        database.write_here(upgrade_tables)
        yield database


_postgres_engines: dict[URL, Engine] = {}
"""They keep their connections: on Postgres each new one costs milliseconds."""


def _engine_outside(url: URL) -> Engine:
    options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"}
    if url.get_backend_name() == "sqlite":
        return create_engine(url, poolclass=NullPool, **options)
    if url not in _postgres_engines:
        options["connect_args"] = {"application_name": "a test"}
        _postgres_engines[url] = create_engine(
            url, pool_pre_ping=True, pool_size=1, max_overflow=-1, **options
        )
    return _postgres_engines[url]


def close_outside() -> None:
    """Close all that `outside` has kept."""
    while _postgres_engines:
        _postgres_engines.popitem()[1].dispose()


@contextmanager
def outside(subject: Subject) -> Iterator[Connection]:
    """A connection as another program would have it. Each statement is a transaction of its own."""
    with _engine_outside(url_of(subject)).connect() as connection:
        yield connection


def query(subject: Subject, statement: str) -> list[tuple[Any, ...]]:
    """Ask the database, from outside the app."""
    with outside(subject) as connection:
        return rows(connection, statement)


def rows(connection: Connection, statement: str) -> list[tuple[Any, ...]]:
    """What a statement gives."""
    result = connection.exec_driver_sql(statement)
    return [tuple(row) for row in result] if result.returns_rows else []


@contextmanager
def locked(subject: Subject, *, to_readers: bool = False) -> Iterator[Connection]:
    """In the block, another program has all tables to itself, in a transaction that its `rollback`
    ends. Others cannot write, nor read if they are locked `to_readers` too.

    On SQLite only a file that is not in WAL mode yet can be locked to readers.
    """
    engine = create_engine(url_of(subject), poolclass=NullPool)
    with engine.connect() as connection:
        if engine.name == "sqlite":
            connection.exec_driver_sql("BEGIN EXCLUSIVE" if to_readers else "BEGIN IMMEDIATE")
        else:
            # Who waits for it without a limit of his own does so for ever, and so would the test.
            connection.exec_driver_sql("SET idle_in_transaction_session_timeout = '20s'")
            lock_schema(connection)
            mode = "ACCESS EXCLUSIVE" if to_readers else "EXCLUSIVE"
            for table in inspect(connection).get_table_names():
                connection.exec_driver_sql(f"LOCK TABLE {table} IN {mode} MODE")
        yield connection


@asynccontextmanager
async def busy(
    use: Callable[[Callable[[Connection], object]], Coroutine[Any, Any, object]], count: int
) -> AsyncIterator[None]:
    """In the block, so many reads or writes are under way, by `database.read` or `.write`. It fails
    if one of them has ended: whatever was done in it has waited for that."""
    gate = threading.Event()
    others = [asyncio.create_task(use(lambda _: gate.wait(REAL_SECONDS_MAX))) for _ in range(count)]
    await asyncio.sleep(0)
    try:
        yield
        assert not any(other.done() for other in others)
    finally:
        gate.set()
        await asyncio.gather(*others)


def disconnect(subject: Subject) -> None:
    """End all connections of the app to a Postgres database, as a restart of its server does."""
    ask_server(
        subject,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = '{name}' AND application_name <> 'a test'",
    )


@contextmanager
def shut(subject: Subject) -> Iterator[None]:
    """In the block, a Postgres database lets nobody in, and who was in it is out."""
    ask_server(subject, "ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    try:
        disconnect(subject)
        yield
    finally:
        ask_server(subject, "ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def ask_server(subject: Subject, statement: str) -> None:
    """Tell a Postgres server, from outside the database, something about `{name}`, which is it."""
    url = url_of(subject)
    query(url.set(database="template1"), statement.format(name=url.database))


def contents(subject: Subject) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of the engine's tables, as another process would read them."""
    with outside(subject) as connection:
        return {
            table: rows(connection, f"SELECT * FROM {table} ORDER BY 1, 2")  # noqa: S608 -- a name of ours
            for table in TABLES
        }


def name_of(subject: Subject) -> str:
    """How the app names the database to people."""
    url = url_of(subject)
    if url.get_backend_name() == "sqlite":
        return f"SQLite {path_of(url)}"
    return f"Postgres {url.host}{f':{url.port}' if url.port else ''}/{url.database}"


def path_of(subject: Subject) -> Path:
    """The file of a SQLite database."""
    return Path(str(url_of(subject).database))


def newest_revision() -> str:
    """Of the app's migrations."""
    return str(ScriptDirectory(str(MIGRATIONS)).get_current_head())


def schema(subject: Subject) -> dict[str, list[str]]:
    """What the database consists of: the tables with their columns, and the indexes."""
    with outside(subject) as connection:
        inspector = inspect(connection)
        return {
            table: [
                *(f"{each['name']} {each['type']!r}" for each in inspector.get_columns(table)),
                *(str(each["name"]) for each in inspector.get_indexes(table)),
            ]
            for table in inspector.get_table_names()
        }
