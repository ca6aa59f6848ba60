"""How Alembic gets at the database: from the app's lifespan, or by its own command."""

from contextlib import closing

from alembic import context
from sqlalchemy import Connection

from app import sessions  # noqa: F401 -- its table belongs to the metadata
from app.db import metadata, open_database
from app.settings import read_settings


def run(connection: Connection) -> None:
    """Run the migrations, in the transaction that `connection` is in."""
    # SQLite cannot alter much of a table in place: a batch makes it anew.
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    context.run_migrations()


if (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    with closing(open_database(read_settings())) as database:
        database.write_here(run)
