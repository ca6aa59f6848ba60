"""The app's database: where it is, how an endpoint or a job gets it, and its schema."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from fastapi import Depends
from fastapi.requests import HTTPConnection
from sqlalchemy import BigInteger, Connection, Dialect, MetaData, TypeDecorator

from .cron.database import Database
from .settings import Settings

log = logging.getLogger(__name__)

metadata = MetaData()
"""The tables of the app. Alembic compares them with the database."""

EPOCH = datetime.fromtimestamp(0, UTC)


class Moment(TypeDecorator[datetime]):
    """A column of aware datetimes, kept as whole microseconds since 1970 in UTC.

    SQLite has no type for them: as text, they would compare with a number as if always later.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else (value - EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else EPOCH + timedelta(microseconds=value)


MIGRATIONS = Path(__file__).parent / "migrations"


def open_database(settings: Settings) -> Database:
    """The database that the settings name. Raises DatabaseError if it cannot be used."""
    database = Database(settings.database_path)
    database.check()
    return database


async def get_database(connection: HTTPConnection) -> Database:
    """The database that the lifespan has opened."""
    database: Database = connection.state.database
    return database


DatabaseDep = Annotated[Database, Depends(get_database)]


async def upgrade_schema(database: Database) -> None:
    """Bring the schema to the newest revision, if it is at one that this code knows.

    A database that newer code has upgraded is left alone: two versions run side by side during a
    deployment. All is one write transaction, so processes that start together take turns.
    """
    await database.write(_upgrade)


def _upgrade(connection: Connection) -> None:
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
