"""What tests of the database write: a count. And checks that end a write."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, text


def create(connection: Connection) -> None:
    """Make a table of one count, 0."""
    connection.exec_driver_sql("CREATE TABLE counts (count INTEGER NOT NULL)")
    connection.exec_driver_sql("INSERT INTO counts VALUES (0)")


def read_count(connection: Connection) -> Any:
    """What the count is."""
    return connection.exec_driver_sql("SELECT count FROM counts").scalar_one()


def set_count(connection: Connection, count: int) -> None:
    """Make the count another one."""
    connection.execute(text("UPDATE counts SET count = :count"), {"count": count})


def increment(connection: Connection) -> None:
    """Read the count and write one more: two who did this at once would lose one."""
    set_count(connection, read_count(connection) + 1)


class Over(Exception):
    """What a check raises."""


def over_after(calls: int) -> Callable[[], None]:
    """A check that raises when it has been called so often."""
    left = iter(range(calls))

    def check() -> None:
        if next(left, None) is None:
            raise Over

    return check
