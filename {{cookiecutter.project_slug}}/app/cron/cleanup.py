"""Deleting much while others write: they wait for milliseconds, not until all of it is gone."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Table,
    delete,
    literal_column,
    select,
    tuple_,
)

from .clock import Clock
from .database import Database
from .job import JobContext

TRANSACTION_SECONDS = 0.005

STEP_ROWS = 50

TRANSACTION_ROWS_MAX = 1_000

KEYS_MAX = 100_000

PROGRESS_SECONDS = 10.0

PAUSE = 1.0


async def delete_in_chunks(
    ctx: JobContext, db: Database, table: Table, condition: ColumnElement[bool]
) -> int:
    """Delete the rows that meet the condition, and return how many those were.
    """
    deleted, told_at = 0, ctx.clock.monotonic()
    find = partial(_find, table, condition)
    keys, position = await db.read(find), 0
    while position < len(keys) and not ctx.stopping:
        chunk = keys[position : position + TRANSACTION_ROWS_MAX]
        began, tried, rows = await ctx.write(partial(_delete, table, condition, chunk, ctx.clock))
        position += tried
        deleted += rows
        now = ctx.clock.monotonic()
        if now - told_at >= PROGRESS_SECONDS:
            ctx.log.info("%d deleted so far", deleted)
            told_at = now
        await ctx.clock.sleep((now - began) * PAUSE)
        if position == KEYS_MAX:
            keys, position = await db.read(partial(find, after=keys[-1])), 0
    return deleted


def _key(table: Table, connection: Connection) -> list[ColumnElement[Any]]:
    sqlite = connection.dialect.name == "sqlite"
    if sqlite and table.dialect_options["sqlite"]["with_rowid"]:
        return [literal_column("_rowid_", Integer)]
    return list(table.primary_key)


def _find(
    table: Table, condition: ColumnElement[bool], connection: Connection, after: Any = None
) -> Sequence[Any]:
    columns = _key(table, connection)
    order = [literal_column("+_rowid_", Integer)] if columns[0].key == "_rowid_" else columns
    key = order[0] if len(columns) == 1 else tuple_(*columns)
    query = select(*columns).select_from(table).where(condition).order_by(*order).limit(KEYS_MAX)
    if after is not None:
        query = query.where(key > after)
    rows = connection.execute(query)
    return rows.scalars().all() if len(columns) == 1 else [tuple(row) for row in rows]


def _delete(
    table: Table,
    condition: ColumnElement[bool],
    keys: Sequence[Any],
    clock: Clock,
    connection: Connection,
) -> tuple[float, int, int]:
    began, deleted, tried = clock.monotonic(), 0, 0
    columns = _key(table, connection)
    key = columns[0] if len(columns) == 1 else tuple_(*columns)
    while tried < len(keys):
        step = keys[tried : tried + STEP_ROWS]
        among = key.in_(step) & (key >= step[0]) & (key <= step[-1])
        deleted += connection.execute(delete(table).where(among, condition)).rowcount
        tried += len(step)
        if clock.monotonic() - began >= TRANSACTION_SECONDS:
            break
    return began, tried, deleted
