"""Who is compared, and what each one's own tables say of a run."""

import json
import os
import re
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.compare.count import Told

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).parent / "requirements"

LOCK_SECONDS = 3
"""How long a lease of ours lasts, and a lock of fastapi-crons: the shortest that ours allows."""


@dataclass(frozen=True, slots=True)
class Installed:
    """An interpreter with what a peer needs, and where its own modules are."""

    python: Path
    path: str

    def environment(self, folder: Path) -> dict[str, str]:
        """Return the variables for a process whose files are in the folder."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("CRON_")},
            "PYTHONPATH": self.path,
            "COMPARE_DATABASE": str(folder / "app.db"),
            "COMPARE_RECORDS": str(folder / "records.jsonl"),
            "DATABASE_URL": f"sqlite:///{folder / 'app.db'}",
            "CRON_LEASE_SECONDS": str(LOCK_SECONDS),
            "CRON_LOCK_TTL": str(LOCK_SECONDS),
        }


History = Callable[[Path, Installed], list[Told]]


@dataclass(frozen=True, slots=True)
class Peer:
    """One column of the table."""

    name: str
    """Also that of its list in `requirements`, if it has one."""
    app: str
    """The module in `apps`."""
    environment_of: str
    """The list that its environment is made of."""
    history: History | None = None
    """Reads its tables in a folder; None where it keeps none of its runs."""

    @property
    def title(self) -> str:
        """Its name, with the version where it has one."""
        requirements = REQUIREMENTS / f"{self.name}.txt"
        if not requirements.exists():
            return self.name
        found = re.search(rf"^{self.name}==(\S+)", requirements.read_text("utf-8"), re.M)
        assert found, f"{requirements} does not name {self.name}"
        return f"{self.name} {found[1]}"


def our_history(folder: Path, installed: Installed) -> list[Told]:
    """Ask the shell, as an operator would."""
    process = subprocess.run(
        [installed.python, "-m", "app.cron", "history", "work", "--json"],
        cwd=folder,
        env=installed.environment(folder),
        capture_output=True,
        text=True,
        check=True,
    )
    return [
        Told(datetime.fromisoformat(run["started_at"]).timestamp(), run["outcome"] or "running")
        for run in json.loads(process.stdout)
    ]


def history_of_fastapi_crons(folder: Path, _: Installed) -> list[Told]:
    """Read its log of executions, and the state of the job."""
    with closing(sqlite3.connect(folder / "cron_state.db")) as database:
        rows = database.execute(
            "SELECT started_at, status FROM job_execution_log UNION ALL "
            "SELECT started_at, status FROM job_status WHERE status = 'running'"
        ).fetchall()
    return [Told(datetime.fromisoformat(started).timestamp(), status) for started, status in rows]


PEERS = (
    Peer("this template", "ours", "ours", our_history),
    Peer("apscheduler", "with_apscheduler", "apscheduler"),
    Peer("fastapi-crons", "with_fastapi_crons", "fastapi-crons", history_of_fastapi_crons),
    Peer("the post's loop", "loop", "ours"),
)
