"""How Alembic gets at the database: from the app's lifespan, or by its own command."""

from contextlib import closing
from typing import Any

from alembic import context
from sqlalchemy import Connection

from app import sessions  # noqa: F401 -- its table belongs to the metadata
from app.cron.tables import PREFIX, lock_schema
from app.db import metadata, open_database
from app.settings import read_settings


def is_ours(name: str | None, kind: str, _: Any) -> bool:
    """Whether Alembic is to compare a table with the metadata: the engine sees to its own."""
    return kind != "table" or not str(name).startswith(PREFIX)


def run(connection: Connection) -> None:
    """Run the migrations, in the transaction that `connection` is in."""
    lock_schema(connection)
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_name=is_ours,
        render_as_batch=True,  # SQLite cannot alter much of a table in place: it is made anew
    )
    context.run_migrations()


if (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    with closing(open_database(read_settings())) as database:
        database.write_here(run)
