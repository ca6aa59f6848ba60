"""The app's database: where it is, how an endpoint or a job gets it, and its schema."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from fastapi import Depends
from fastapi.requests import HTTPConnection
from sqlalchemy import URL, Connection, MetaData
from sqlalchemy.exc import OperationalError

from .cron.clock import Clock
from .cron.database import Database, DatabaseError, reason_of
from .cron.moment import Moment as Moment
from .cron.postgres import PostgresDatabase
from .cron.sqlite import SqliteDatabase
from .cron.tables import check_version, upgrade_tables
from .settings import Settings

log = logging.getLogger(__name__)

metadata = MetaData()
"""The tables of the app. Alembic compares them with the database."""

MIGRATIONS = Path(__file__).parent / "migrations"


# How long the start waits for a database that is locked by another program, or does not answer.
WAIT_SECONDS_MAX = 120

# Where an app may run on several machines, and what tells: the platforms' own variables.
PLATFORMS = {
    "KUBERNETES_SERVICE_HOST": "Kubernetes",
    "FLY_APP_NAME": "Fly.io",
    "K_SERVICE": "Cloud Run",
    "RENDER": "Render",
    "RAILWAY_ENVIRONMENT_NAME": "Railway",
    "RAILWAY_PROJECT_ID": "Railway",
    "DYNO": "Heroku",
    "ECS_CONTAINER_METADATA_URI_V4": "Amazon ECS",
}


def open_database(settings: Settings) -> Database:
    """The database that the settings name. Raises DatabaseError if it cannot be used."""
    database = database_at(settings.url)
    database.check(check_version)
    return database


def database_at(url: URL) -> Database:
    """The database at the URL, whether it can be used or not."""
    if url.get_backend_name() == "sqlite":
        return SqliteDatabase(_path_of(url))
    return PostgresDatabase(url)


def missing_file(settings: Settings) -> Path | None:
    """The path of a SQLite file that is not there yet.

    None also of one that cannot be looked at: to open it tells why.
    """
    url = settings.url
    with suppress(OSError):
        if url.get_backend_name() == "sqlite" and not (path := _path_of(url)).exists():
            return path
    return None


def remark_on_platform(database: Database, environment: Mapping[str, str]) -> str | None:
    """What a file cannot do on the platform that the environment tells of; None elsewhere."""
    names = (name for variable, name in PLATFORMS.items() if environment.get(variable))
    if not isinstance(database, SqliteDatabase) or (platform := next(names, None)) is None:
        return None
    return (
        f"this is {platform}, and a SQLite file coordinates the processes of one machine only: of "
        "several replicas each would run every job; set DATABASE_URL to a Postgres database, or "
        "keep to one replica, with the file on a volume"
    )


def _path_of(url: URL) -> Path:
    return Path(str(url.database)).absolute()


async def get_database(connection: HTTPConnection) -> Database:
    """The database that the lifespan has opened."""
    database: Database = connection.state.database
    return database


DatabaseDep = Annotated[Database, Depends(get_database)]


async def upgrade_schema(database: Database, clock: Clock) -> None:
    """Bring the tables of the app and of the engine to what this code knows.

    A database that newer code has upgraded is left alone: two versions run side by side during a
    deployment. All is one write transaction, so processes that start together take turns. One that
    is locked, or does not answer, is waited for, two minutes at most: then it raises DatabaseError,
    as it does for one that lets nobody in.
    """
    began, waited = clock.monotonic(), False
    while True:
        try:
            await database.write(_upgrade)
            break
        except OperationalError as error:
            may_wait, reason = database.may_be_waited_for(error), reason_of(error)
            if not may_wait and error.statement:
                raise  # the traceback tells in which migration it stands
        if (seconds := clock.monotonic() - began) > WAIT_SECONDS_MAX or not may_wait:
            problem = f"{database.name}: cannot be used for {seconds:.0f} s: {reason}"
            log.critical(problem)  # the server's own word on a failed start is a long traceback
            raise DatabaseError(problem)
        if not waited:
            log.warning("waiting for the database: %s", reason)
            waited = True
        await clock.sleep(1)
    if waited:
        log.warning("the database is there after %.0f s", clock.monotonic() - began)


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
