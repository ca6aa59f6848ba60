"""Deleting much while others write: they wait for milliseconds, not until all of it is gone."""

from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, literal_column, select, tuple_

from .clock import Clock
from .database import Database
from .job import JobContext

# A transaction begins no further step after so long. The commit takes nearly as long again, then
# the writes of this process have their turn.
TRANSACTION_SECONDS = 0.008

# A step is one statement that deletes so many rows, in about a millisecond.
STEP_ROWS = 200

# A transaction has no more steps, whatever the clock says.
STEPS_MAX = 20

# Other processes have their turn after so much time in transactions, or so many rows: with more, a
# commit would have to write the log back into the file (CHECKPOINT_PAGES).
BREAK_SECONDS, BREAK_ROWS = 0.1, 5_000

# So many keys are in memory: a few megabytes.
KEYS_MAX = 100_000

PROGRESS_SECONDS = 10.0


async def delete_in_chunks(
    ctx: JobContext, db: Database, table: Table, condition: ColumnElement[bool]
) -> int:
    """Delete the rows that meet the condition, in small transactions. Returns how many they were.

    1. Read the keys of the rows, in their order. Nobody waits for that.
    2. Delete for some milliseconds with `ctx.write`: LeaseLost ends all. A row that has changed and
       does not meet the condition any more stays.
    3. Now and then empty the log, and leave the lock to others for as long as it was kept. Then on
       with 2, unless the app stops.

    Raises ValueError for a table without a primary key, but for SQLite's, which has its own. It is
    for `async def` jobs. It works in the database's threads, so its job needs none.
    """
    deleted, since_break, busy_seconds, told_at = 0, 0, 0.0, ctx.clock.monotonic()
    rows = await db.read(partial(_Rows, table, condition, ctx.clock))
    keys = await db.read(rows.find)
    while keys and not ctx.stopping:
        last = keys[-1]
        began, count = await ctx.write(partial(rows.delete, keys=keys))
        ended = ctx.clock.monotonic()
        deleted, since_break = deleted + count, since_break + count
        busy_seconds += ended - began
        if ended - told_at >= PROGRESS_SECONDS:
            ctx.log.info("%d deleted so far", deleted)
            told_at = ended
        if since_break >= BREAK_ROWS or busy_seconds >= BREAK_SECONDS:
            await db.checkpoint()
            await ctx.clock.sleep(max(0.0, ended + busy_seconds - ctx.clock.monotonic()))
            since_break, busy_seconds = 0, 0.0
        # What comes after: a row that could not be deleted does not come up again.
        keys = keys or await db.read(partial(rows.find, after=last))
    return deleted


class _Rows:
    def __init__(
        self, table: Table, condition: ColumnElement[bool], clock: Clock, connection: Connection
    ) -> None:
        self._table, self._condition, self._clock = table, condition, clock
        self._columns = self._order = list[ColumnElement[Any]](table.primary_key)
        if connection.dialect.name == "sqlite" and table.dialect_options["sqlite"]["with_rowid"]:
            # In the order of its pages: in any other, nearly each row is in a page of its own.
            self._columns = [literal_column("_rowid_")]
            # The sign keeps SQLite from reading all of them in it, where an index finds the rows.
            self._order = [literal_column("+_rowid_")]
        if not self._columns:
            raise ValueError(f"{table.name} has no primary key, by which to delete its rows")
        self._key = self._columns[0] if len(self._columns) == 1 else tuple_(*self._columns)

    def find(self, connection: Connection, after: Any = None) -> list[Any]:
        """The next keys: values of the key's column or, if it has several, tuples of them."""
        query = select(*self._columns).select_from(self._table).where(self._condition)
        if after is not None:
            query = query.where(self._key > after)
        rows = connection.execute(query.order_by(*self._order).limit(KEYS_MAX))
        return [*rows.scalars()] if len(self._columns) == 1 else [tuple(row) for row in rows]

    def delete(self, connection: Connection, keys: list[Any]) -> tuple[float, int]:
        """Delete rows and take their keys from the head of `keys`. When it began, and how many."""
        began, count = self._clock.monotonic(), 0
        for _ in range(STEPS_MAX):
            step = keys[:STEP_ROWS]
            del keys[:STEP_ROWS]
            # The bounds are for a planner that takes the table for small, and reads all of it.
            among = self._key.in_(step) & (self._key >= step[0]) & (self._key <= step[-1])
            statement = delete(self._table).where(among, self._condition)
            count += connection.execute(statement).rowcount
            if not keys or self._clock.monotonic() - began >= TRANSACTION_SECONDS:
                break
        return began, count
