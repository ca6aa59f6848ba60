"""The app's database: where it is, how an endpoint or a job gets it, and its schema."""

import logging
from collections.abc import Mapping
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
from .cron.sqlite import is_locked
from .cron.tables import check_version, upgrade_tables
from .settings import Settings

log = logging.getLogger(__name__)

metadata = MetaData()
"""The tables of the app. Alembic compares them with the database."""

MIGRATIONS = Path(__file__).parent / "migrations"


# How long the start waits for another program to let go of the database.
LOCKED_SECONDS_MAX = 120

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
    database = Database(settings.database_path)
    database.check(check_version)
    return database


def remark_on_platform(environment: Mapping[str, str]) -> str | None:
    """What the file cannot do on the platform that the environment tells of; None elsewhere."""
    names = (name for variable, name in PLATFORMS.items() if environment.get(variable))
    if (platform := next(names, None)) is None:
        return None
    return (
        f"this is {platform}, and a SQLite file coordinates the processes of one machine only: of "
        "several replicas each would run every job; keep to one, with the file on a volume"
    )


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
    began, waited = clock.monotonic(), False
    while True:
        try:
            await database.write(_upgrade)
            break
        except OperationalError as error:
            if not is_locked(error):
                raise
        if (seconds := clock.monotonic() - began) > LOCKED_SECONDS_MAX:
            problem = f"{database.path}: locked by another program for {seconds:.0f} s"
            log.critical(problem)  # the server's own word on a failed start is a long traceback
            raise DatabaseError(problem)
        if not waited:
            log.warning("the database is locked by another program; waiting for it")
            waited = True
        await clock.sleep(1)
    if waited:
        log.warning("the database is free after %.0f s", clock.monotonic() - began)


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
