"""The engine's own tables, made and upgraded by version. Alembic never sees them."""

from sqlalchemy import Connection, inspect

from .database import DatabaseError
from .statement import is_postgres

PREFIX = "cron_"
"""How the names of the engine's tables begin, and no others."""

# Any number will do that nobody else takes for a lock of his own: these are the bytes of "cron".
SCHEMA_LOCK = 0x63726F6E

# The version is (major, minor). Code of an older minor version works on beside code of a newer one,
# as in a rolling deployment: a minor step only adds, and what it adds has a default. A major step
# is one after which older code must not run.
STEPS: dict[tuple[int, int], list[str]] = {
    (1, 0): [
        # A job's state, all that a claim decides on. Times are microseconds since 1970, in UTC.
        """
        CREATE TABLE cron_job (
            name VARCHAR(100) PRIMARY KEY,
            next_run_at BIGINT NOT NULL,
            requested_at BIGINT,
            paused BOOLEAN NOT NULL DEFAULT FALSE,
            run_no BIGINT NOT NULL DEFAULT 0,
            owner VARCHAR(200),
            lease_until BIGINT,
            lease_seconds BIGINT,
            failures INTEGER NOT NULL DEFAULT 0,
            ok_count BIGINT NOT NULL DEFAULT 0,
            error_count BIGINT NOT NULL DEFAULT 0,
            timeout_count BIGINT NOT NULL DEFAULT 0,
            interrupted_count BIGINT NOT NULL DEFAULT 0,
            abandoned_count BIGINT NOT NULL DEFAULT 0,
            missed_count BIGINT NOT NULL DEFAULT 0
        )
        """,
        """
        CREATE TABLE cron_run (
            name VARCHAR(100) NOT NULL,
            run_no BIGINT NOT NULL,
            due_at BIGINT NOT NULL,
            started_at BIGINT NOT NULL,
            finished_at BIGINT,
            outcome VARCHAR(20),
            owner VARCHAR(200) NOT NULL,
            note TEXT NOT NULL DEFAULT '',
            error TEXT NOT NULL DEFAULT '',
            PRIMARY KEY (name, run_no)
        )
        """,
        """
        CREATE TABLE cron_process (
            owner VARCHAR(200) PRIMARY KEY,
            started_at BIGINT NOT NULL,
            seen_at BIGINT NOT NULL,
            stopped_at BIGINT,
            absent_from BIGINT,
            absent_until BIGINT
        )
        """,
    ],
}


def check_version(connection: Connection) -> tuple[int, int]:
    """The version of the tables, (0, 0) where there are none. Raises DatabaseError for one that
    this code must not touch."""
    if not inspect(connection).has_table("cron_schema"):
        return 0, 0
    major, minor = connection.exec_driver_sql("SELECT major, minor FROM cron_schema").one()
    known = max(STEPS)
    if major > known[0]:
        raise DatabaseError(
            f"the cron tables are of version {major}.{minor}, this code is made for "
            f"{known[0]}.{known[1]}: run the newer code that has upgraded them"
        )
    return major, minor


def lock_schema(connection: Connection) -> None:
    """Of all processes that would change tables, let one do so until it commits. SQLite's writers
    take turns anyway."""
    if is_postgres(connection):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")


def upgrade_tables(connection: Connection) -> None:
    """Make the tables, or bring them to this code's version, in the transaction of `connection`.

    Tables of a newer minor version are left as they are. Raises DatabaseError for a newer major.
    """
    lock_schema(connection)
    found, known = check_version(connection), max(STEPS)
    if found == (0, 0):
        connection.exec_driver_sql("CREATE TABLE cron_schema (major INTEGER, minor INTEGER)")
    for version, statements in sorted(STEPS.items()):
        if version > found:
            for statement in statements:
                connection.exec_driver_sql(statement)
    if known > found:
        connection.exec_driver_sql("DELETE FROM cron_schema")
        connection.exec_driver_sql(f"INSERT INTO cron_schema VALUES ({known[0]}, {known[1]})")  # noqa: S608 -- two numbers of ours
