"""Postgres as the database: for the processes of any number of machines."""

from collections.abc import Callable

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from .database import READERS, Database, DatabaseError, reason_of
from .threads import DaemonThreads

# Writes that are not urgent, in so many threads. With the readers and one thread each for what is
# urgent, a process has at most eight connections, and one for each `def` job that reads.
WRITERS = 2

# How long a statement waits for a lock. What is locked for longer is tried again later.
LOCK_SECONDS = 5

# A transaction that is silent for so long is ended by the server: it may belong to a process that
# is frozen, or cut off, and nobody else could claim the job that it has locked.
IDLE_SECONDS = 10

# How a connection notices that the other side is gone. libpq alone would wait for hours.
CONNECT = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}

# What is said where no connection is made because there is no server, or none that takes one yet.
# All else is for people to mend: a password, a certificate, an option that nobody knows.
AWAY = (
    "Is the server running",  # libpq asks so whatever the system's word is, in whatever language
    "timeout expired",
    "failed to resolve host",
    "could not translate host name",
    "closed the connection unexpectedly",
    "could not receive data",
    "could not send",
    "SSL SYSCALL error",
    "unexpected eof",
)
BUSY = (
    "the database system is",  # starting up, shutting down, in recovery mode
    "too many",
    "connection slots",
    "no more connections allowed",  # this and the next say poolers
    "try again later",
)


class PostgresDatabase(Database):
    """A Postgres server's database, by a URL such as postgresql://user:password@host/name.

    The forms of other drivers are understood: postgres://, and postgresql+asyncpg://. What is
    urgent has a thread and a connection of its own, so it waits for no job's or endpoint's write.
    """

    def __init__(self, url: URL) -> None:
        url = as_psycopg(url)
        connect_args = {
            # A pooler may give each transaction another session, which knows no statements.
            "prepare_threshold": None,
            **{key: value for key, value in CONNECT.items() if key not in url.query},
        }
        engine = create_engine(
            url,
            pool_size=WRITERS + READERS + 2,
            max_overflow=-1,  # the threads are the limit, and a `def` job has one of its own
            pool_pre_ping=True,  # a server that was restarted is no error, if it is there again
            connect_args=connect_args,
        )
        # All statements of a read see the same moment. (On SQLite each sees its own.)
        read_engine = engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        event.listen(read_engine, "begin", _limit_read)
        write_engine = engine.execution_options(isolation_level="READ COMMITTED")
        event.listen(write_engine, "begin", limit_write)
        writer = DaemonThreads(WRITERS, "database-writer")
        urgent_writer = DaemonThreads(1, "database-urgent-writer")
        host = url.host or url.query.get("host", "local socket")
        port = f":{url.port}" if url.port else ""
        super().__init__(
            f"Postgres {host}{port}/{url.database}",
            url,
            connect_args=connect_args,
            read_engine=read_engine,
            write_engine=write_engine,
            writer=writer,
            urgent_writer=urgent_writer,
            threads=[writer, urgent_writer],
        )

    def check(self, look: Callable[[Connection], object] = lambda _: None) -> None:
        """Connect, and look. Raises DatabaseError if the server does not let us in, or if `look`
        does. A server that does not answer yet passes: who uses it may wait for it."""
        try:
            self.read_here(look)
        except (SQLAlchemyError, DatabaseError) as error:
            if isinstance(error, OperationalError) and self.may_be_waited_for(error):
                return
            self.close()
            raise DatabaseError(f"{self.name}: {reason_of(error)}") from error

    def may_be_waited_for(self, error: OperationalError) -> bool:
        """True unless no connection is made for a reason that people must mend."""
        if error.statement or error.connection_invalidated:
            return True  # there was one
        reason = reason_of(error)  # libpq has no code for it
        return any(words in reason for words in AWAY + BUSY)


def as_psycopg(url: URL) -> URL:
    """The URL for psycopg, which serves sync and async engines alike."""
    query = dict(url.query)
    if ssl := query.pop("ssl", None):  # other drivers' name for it
        query["sslmode"] = "require" if ssl == "true" else ssl
    return url.set(drivername="postgresql+psycopg", query=query)


def limit_write(connection: Connection) -> None:
    """Let this transaction neither wait for a lock nor be silent for long."""
    _limit(
        connection,
        lock_timeout=LOCK_SECONDS,
        idle_in_transaction_session_timeout=IDLE_SECONDS,
    )


def limit_statements(connection: Connection, seconds: float) -> None:
    """Let no statement of this transaction take longer."""
    _limit(connection, statement_timeout=seconds)


def _limit_read(connection: Connection) -> None:
    _limit(connection, lock_timeout=LOCK_SECONDS)


def _limit(connection: Connection, **limits: float) -> None:
    """Set these, in seconds, for one transaction: a pooler between us and the server may give the
    session to others."""
    settings = ", ".join(
        f"set_config('{name}', '{round(seconds * 1_000)}ms', true)"
        for name, seconds in limits.items()
    )
    connection.exec_driver_sql(f"SELECT {settings}")
