"""Where the service under test keeps what it writes: a SQLite file, or a Postgres server."""

import os
import shutil
import signal
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from tools.chaos.disks import Disk
from tools.chaos.links import NETWORK
from tools.postgres import PostgresServer

ROOT = Path(__file__).resolve().parents[2]

# For so long nobody waits for what has been killed.
GONE_SECONDS_MAX = 20.0

# The service's tests want it quick. Here what is committed must survive a kill; and what was
# committed in which order must be known.
OPTIONS = ("synchronous_commit=on", "track_commit_timestamp=on", "listen_addresses=*")

# The order of the ids is that of the commits on SQLite, which lets one write at a time. On Postgres
# an id is drawn before the commit, in any order; its time is taken while the row is still locked.
ORDER = {"sqlite": "id", "postgres": "pg_xact_commit_timestamp(xmin), id"}

EFFECTS = "SELECT what, job, pid, owner, run_no, wall, body FROM chaos_effect ORDER BY "

HISTORY = "SELECT name, owner, due_at, started_at, outcome FROM cron_run ORDER BY started_at"

CLAIMS = "SELECT id, owner FROM chaos_effect WHERE what = 'claim' AND id > :last ORDER BY id"

DISCONNECT = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend'
    AND pid <> pg_backend_pid()
"""


class Database(ABC):
    """A new, empty one. It is there in a `with` block."""

    name: str

    def __enter__(self) -> Self:
        """Make it."""
        return self

    @abstractmethod
    def __exit__(self, *_: object) -> None:
        """Take it away; files are left."""

    @property
    @abstractmethod
    def url(self) -> URL:
        """Where we reach it."""

    def url_for(self, host: str | None) -> str:
        """Where the service reaches it, by that address if there is one."""
        url = self.url if host is None else self.url.set(host=host)
        return url.render_as_string(hide_password=False)

    def ask(self, statement: str, **values: object) -> Sequence[Any]:
        """Run a statement, and give its rows. Each has a connection of its own."""
        engine = create_engine(self.url, poolclass=NullPool)
        with engine.connect() as connection:
            return connection.execute(text(statement), values).all()

    def effects(self) -> Sequence[Any]:
        """Give what was committed, in that order."""
        return self.ask(EFFECTS + ORDER[self.name])

    def history(self) -> Sequence[Any]:
        """Give the engine's own history of all jobs."""
        return self.ask(HISTORY)

    def claims_after(self, last: int) -> Sequence[Any]:
        """Give the claims since that one, with their numbers."""
        return self.ask(CLAIMS, last=last)


class Sqlite(Database):
    """A file in the folder, or on a small disk."""

    name = "sqlite"

    def __init__(self, folder: Path, *, small: bool = False) -> None:
        """Make the disk."""
        self.disk = Disk(folder / "disk") if small else None
        self.path = (self.disk.folder if self.disk else folder) / "app.db"

    def __exit__(self, *_: object) -> None:
        """Take the disk away; what was on it is left in the folder."""
        if self.disk:
            for path in self.path.parent.glob("app.db*"):
                shutil.copy(path, self.disk.folder.parent)
            self.disk.end()

    @property
    def url(self) -> URL:
        """The file."""
        return make_url(f"sqlite:///{self.path}")


class Postgres(Database):
    """A server of its own, which can be killed and started again."""

    name = "postgres"

    def __init__(self, folder: Path) -> None:
        """Make it. Its log is left in the folder."""
        self._log = folder / "postgres.log"
        # The server may be `nobody`, who cannot get into the folder.
        self._folder = Path(tempfile.mkdtemp(prefix="chaos-postgres-"))
        self.server = PostgresServer(self._folder, *OPTIONS)
        with (self._folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {NETWORK} trust\n")

    def __enter__(self) -> Self:
        """Start it."""
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it, and take all away but its log."""
        self.server.end()
        shutil.copy(self._folder / "log", self._log)
        shutil.rmtree(self._folder)

    @property
    def url(self) -> URL:
        """The database that each server has."""
        return self.server.url

    def kill(self) -> None:
        """Kill all its processes, none of which can say or write a last thing."""
        assert self.server.popen is not None
        pids = children(self.server.popen.pid)
        self.server.end(signal.SIGKILL)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + GONE_SECONDS_MAX
        while any(is_alive(pid) for pid in pids):  # the next server would not start beside them
            assert time.monotonic() < deadline, "Postgres cannot be killed"
            time.sleep(0.01)

    def crash(self) -> None:
        """End it at once, as when one of its processes has crashed."""
        self.server.end(signal.SIGQUIT)

    def start(self) -> None:
        """Start it again, and wait until it answers."""
        self.server.start()

    def disconnect(self) -> int:
        """Terminate all connections but this one, and say how many."""
        return int(self.ask(DISCONNECT)[0][0])


def children(parent: int) -> list[int]:
    """Give the processes that this one has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if status(path)[1] == str(parent):
                found.append(int(path.name))
    return found


def is_alive(pid: int) -> bool:
    """Say whether it runs. One that has ended and that nobody has asked about does not."""
    with suppress(OSError):
        return status(Path(f"/proc/{pid}"))[0] != "Z"
    return False


def status(process: Path) -> list[str]:
    """Read the state and the parent of a process."""
    return (process / "stat").read_text().rpartition(")")[2].split()[:2]
