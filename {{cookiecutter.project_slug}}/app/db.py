"""The app's database: where it is, how an endpoint or a job gets it, and its schema."""

import logging
import sqlite3
from pathlib import Path
from typing import Annotated

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from fastapi import Depends
from fastapi.requests import HTTPConnection
from sqlalchemy import Connection, MetaData
from sqlalchemy.exc import OperationalError

from .cron.clock import Clock
from .cron.database import Database, DatabaseError
from .cron.moment import Moment as Moment
from .cron.tables import check_version, upgrade_tables
from .settings import Settings

log = logging.getLogger(__name__)

metadata = MetaData()
"""The tables of the app. Alembic compares them with the database."""

MIGRATIONS = Path(__file__).parent / "migrations"


# How long the start waits for another program to let go of the database.
LOCKED_SECONDS_MAX = 120


def open_database(settings: Settings) -> Database:
    """The database that the settings name. Raises DatabaseError if it cannot be used."""
    database = Database(settings.database_path)
    database.check()
    try:
        database.read_here(check_version)
    except DatabaseError:
        database.close()
        raise
    return database


async def get_database(connection: HTTPConnection) -> Database:
    """The database that the lifespan has opened."""
    database: Database = connection.state.database
    return database


DatabaseDep = Annotated[Database, Depends(get_database)]


async def upgrade_schema(database: Database, clock: Clock) -> None:
    """Bring the tables of the app and of the engine to what this code knows.

    A database that newer code has upgraded is left alone: two versions run side by side during a
    deployment. All is one write transaction, so processes that start together take turns. Another
    program that keeps it locked is waited for, two minutes at most: then it raises DatabaseError.
    """
    give_up_at = clock.monotonic() + LOCKED_SECONDS_MAX
    while True:
        try:
            return await database.write(_upgrade)
        except OperationalError as error:
            if getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY:
                raise
            if clock.monotonic() > give_up_at:
                raise DatabaseError(f"{database.path} is locked by another program") from error
            log.warning("the database is locked by another program; waiting for it")
            await clock.sleep(1)


def _upgrade(connection: Connection) -> None:
    upgrade_tables(connection)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    current = set(MigrationContext.configure(connection).get_current_heads())
    if current <= known:
        command.upgrade(config, "head")
    else:
        unknown = ", ".join(sorted(current - known))
        log.warning("the database is at revision %s, unknown here; it is left alone", unknown)
