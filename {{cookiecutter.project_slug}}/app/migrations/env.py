"""How Alembic gets at the database: from the app's lifespan, or by its own command."""

import importlib
import pkgutil
from contextlib import closing
from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection

import app
from app.cron.tables import PREFIX, lock_schema
from app.db import Moment, metadata, open_database
from app.settings import read_settings


def is_ours(name: str | None, kind: str, _: Any) -> bool:
    """Whether Alembic is to compare a table with the metadata: the engine sees to its own."""
    return kind != "table" or not str(name).startswith(PREFIX)


def render(kind: str, value: object, _: Any) -> str | Literal[False]:
    """How a migration writes a type: it stands for itself, and imports nothing of the app."""
    return "sa.BigInteger()" if kind == "type" and isinstance(value, Moment) else False


def run(connection: Connection) -> None:
    """Run the migrations, in the transaction that `connection` is in."""
    lock_schema(connection)
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_name=is_ours,
        render_item=render,
        render_as_batch=True,  # SQLite cannot alter much of a table in place: it is made anew
    )
    context.run_migrations()


if (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    # The metadata knows the tables of modules that have been imported: a new migration would not
    # see the others, and say nothing.
    for module in pkgutil.walk_packages(app.__path__, "app."):
        if not module.name.endswith("__main__") and not module.name.startswith("app.cron."):
            importlib.import_module(module.name)
    with closing(open_database(read_settings())) as database:
        database.write_here(run)
