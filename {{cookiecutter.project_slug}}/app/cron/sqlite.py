"""How a connection to SQLite is set up, and what only SQLite has."""

import sqlite3
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

# How long a statement waits for another process to end its write.
BUSY_SECONDS = 5

# SQLite keeps so much of the file in memory for the writer: the pages that many writes touch.
CACHE_KIB = 16_000

# A commit writes the log back into the file once so many pages are in it, 40 MB. A page is written
# once, however often it is in the log, and a disk takes many at a time in far less time each.
CHECKPOINT_PAGES = 10_000

# Older ones do not know RETURNING.
SQLITE_MIN = (3, 35)

# The smallest query that needs the file to be a database.
READ_SCHEMA = "SELECT count(*) FROM sqlite_master"


def is_locked(error: OperationalError) -> bool:
    """True if another program has kept the database locked for longer than a statement waits."""
    code: int = getattr(error.orig, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_BUSY  # the rest of it says more, such as why


def set_up_writer(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # transactions begin when we say so
    try:
        connection.execute("PRAGMA journal_mode = WAL")  # readers need not wait for the writer
    except sqlite3.OperationalError:
        # On a new file this does not wait for another process that writes. Beginning does.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")


def set_up_reader(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA query_only = ON")


def checkpoint(connection: Connection) -> None:
    """Empty the log. What is left for when nobody may write is very little."""
    connection.exec_driver_sql(READ_SCHEMA).all()  # a connection that has never read knows no log
    # The second takes what has been written during the first, and waits until the disk has both.
    for _ in range(2):
        connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)").all()
    # The log begins anew only when all of it is in the file at some moment. This one holds off
    # other writers, so it must not wait for readers.
    connection.exec_driver_sql("PRAGMA busy_timeout = 0")
    try:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(FULL)").all()
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1_000}")


def begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
