"""A disk that is full, and one that cannot be written: real ones, small and of the test's own.

They exist in a mount namespace, which `unshare` makes. In it this file runs as a script, which does
all that is to be seen and prints it; the tests then look at one thing each.
"""

import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.machine import lacking
from tests.server import REAL_SECONDS_MAX, TICKING, Server, ticks, wait_until
from tools.bake import TEMPLATE

# The first one serves whoever may have user namespaces, the second one root.
NAMESPACES = (["unshare", "--map-root-user", "--mount"], ["unshare", "--mount"])

DISK_KILOBYTES = 8_000


# What is to be seen


def namespace(disk: Path) -> list[str] | None:
    """Return how to begin a command that may mount something on `disk`; None if nobody may."""
    for unshare in NAMESPACES:
        command = [*unshare, "mount", "-t", "tmpfs", "tmpfs", str(disk)]
        try:
            if subprocess.run(command, capture_output=True).returncode == 0:
                return unshare
        except OSError:
            return None
    return None


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return what has happened. Where it cannot, CI fails, and other machines skip."""
    folder = tmp_path_factory.mktemp("full_disk")
    (folder / "disk").mkdir()
    if (unshare := namespace(folder / "disk")) is None:
        lacking("no disk can be mounted here (unshare, mount): what a full one does is untested")
    script = [sys.executable, "-m", "tests.test_full_disk", str(folder)]
    finished = subprocess.run([*unshare, *script], cwd=TEMPLATE, stdout=subprocess.PIPE, text=True)
    assert finished.returncode == 0
    return json.loads(finished.stdout)


def test_both_processes_go_on_when_there_is_room_again(story: Any) -> None:
    """By themselves, within the rest of 16 s that such a time has come to, and a run or two."""
    assert story["ticks when full"] < story["ticks at the end"]
    assert story["seconds until it goes on"] < 25


def test_a_full_disk_is_told_in_a_line_by_each_process(story: Any) -> None:
    """It says why no job starts; another line says when that is over, one each what is put off."""
    for warnings in story["warnings"]:
        [away, put_off, back] = warnings
        assert away == (
            "ERROR cron: the database is away, no job starts until it is back: "
            "database or disk is full"
        )
        assert put_off.startswith("WARNING POST /sessions: the database cannot be used: ")
        assert re.fullmatch(r"WARNING cron: the database is back after \d+ s", back)


def test_no_run_is_lost_and_none_is_made_twice(story: Any) -> None:
    """Each run has one start, and has ended well."""
    assert story["ticks"] == list(range(1, len(story["ticks"]) + 1))
    assert story["runs"] == [[number, "ok"] for number in story["ticks"]]


def test_who_writes_is_put_off_as_long_as_it_is_full(story: Any) -> None:
    """A session that was confirmed is there, before, and after; no other one is."""
    assert story["created before"] == story["created after"] == [201, 201]
    assert story["created when full"] == [503, 503]
    assert story["sessions"] == 4


def test_who_reads_is_served_as_long_as_it_is_full(story: Any) -> None:
    """So the service is ready, with a database that it can only read."""
    assert story["read when full"] == [404, 404]
    assert story["ready when full"] == [200, 200]


def test_a_service_on_a_full_disk_is_alive(story: Any) -> None:
    """A restart would not help; it says what is wrong."""
    for code, text in story["alive when full"]:
        assert code == 200
        assert re.fullmatch(r"the database is away for \d+ s: database or disk is full", text)
    assert story["alive at the end"] == [[200, "ok"], [200, "ok"]]


def test_the_database_is_whole(story: Any) -> None:
    """SQLite has found nothing wrong with it."""
    assert story["integrity"] == "ok"


def test_a_disk_that_is_read_only_ends_the_start_in_one_line(story: Any) -> None:
    """With code 1, and the folder that cannot be written."""
    code, output = story["read-only"]
    assert code == 1
    assert re.fullmatch(r"DatabaseError: (.*)/app\.db: \1 is not writable\n", output)


# How it comes about, in the namespace


class Uvicorn(Server):
    """The service on a disk. Its log is the file `name` in the folder, on one that has room."""

    def __init__(self, folder: Path, disk: Path, name: str) -> None:
        """Start it on a free port."""
        super().__init__(
            ["uvicorn", "service:service", "--factory", "--port", "0"],
            folder=folder,
            log=folder / name,
            DATABASE_URL=f"sqlite:///{disk}/app.db",
            CRON_LEASE_SECONDS="5",
        )

    def url(self) -> str:
        """Wait until it serves, and return where."""
        pattern = re.compile(r"running on (http://\S+)")
        self.wait_until(lambda: bool(pattern.search(self.log)))
        found = pattern.search(self.log)
        assert found
        return found[1]

    def create(self) -> int:
        """Make a session, and return the code of the answer."""
        new = {"user": "ana", "ttl_seconds": 600}
        url = f"{self.url()}/sessions"
        return httpx2.post(url, json=new, timeout=REAL_SECONDS_MAX, trust_env=False).status_code

    def get(self, path: str) -> httpx2.Response:
        """Ask for something."""
        return httpx2.get(f"{self.url()}{path}", timeout=REAL_SECONDS_MAX, trust_env=False)

    def alive(self) -> tuple[int, str]:
        """Return what it says of itself."""
        answer = self.get("/health/live")
        return answer.status_code, answer.json()["cron"]

    def away_seconds(self) -> int:
        """Return for how long it has been without its database."""
        found = re.search(r"away for (\d+) s", self.alive()[1])
        return int(found[1]) if found else 0

    def warnings(self) -> list[str]:
        """Return what the app's log warns of, or worse, without the time."""
        lines = (line.split(" ", 2)[-1] for line in self.log.splitlines())
        return [line for line in lines if line.startswith(("WARNING ", "ERROR ", "CRITICAL "))]


def fill(path: Path) -> None:
    """Write until there is no room any more."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return


def tell(folder: Path) -> dict[str, object]:
    """Do all that is to be seen, and return it."""
    seen: dict[str, object] = {}
    disk = folder / "disk"
    (folder / "service.py").write_text(TICKING)
    size = f"size={DISK_KILOBYTES}k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", disk], check=True)

    def count() -> int:
        return len(ticks(folder))

    with Uvicorn(folder, disk, "one.log") as one, Uvicorn(folder, disk, "two.log") as two:
        both = (one, two)
        wait_until(lambda: count() >= 3)
        seen["created before"] = [server.create() for server in both]
        fill(disk / "ballast")
        wait_until(lambda: all(server.warnings() for server in both))
        seen["ticks when full"] = at = count()
        seen["created when full"] = [server.create() for server in both]
        seen["read when full"] = [server.get("/sessions/none").status_code for server in both]
        seen["ready when full"] = [server.get("/health/ready").status_code for server in both]
        wait_until(lambda: all(server.away_seconds() >= 5 for server in both))
        seen["alive when full"] = [server.alive() for server in both]
        (disk / "ballast").unlink()
        began = time.monotonic()
        wait_until(lambda: count() >= at + 3)
        seen["seconds until it goes on"] = time.monotonic() - began
        wait_until(lambda: all(server.alive() == (200, "ok") for server in both))
        seen["created after"] = [server.create() for server in both]
        seen["alive at the end"] = [server.alive() for server in both]
        for server in both:
            server.end_by(signal.SIGINT)
        seen["warnings"] = [server.warnings() for server in both]
    seen["ticks at the end"] = count()
    seen["ticks"] = [number for number, _ in ticks(folder)]
    database = sqlite3.connect(disk / "app.db")
    seen["runs"] = database.execute("SELECT run_no, outcome FROM cron_run ORDER BY 1").fetchall()
    [seen["sessions"]] = database.execute("SELECT count(*) FROM sessions").fetchone()
    [seen["integrity"]] = database.execute("PRAGMA integrity_check").fetchone()
    database.close()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with Uvicorn(folder, disk, "read-only.log") as server:
        seen["read-only"] = server.wait_for_end(), server.log
    return seen


if __name__ == "__main__":
    print(json.dumps(tell(Path(sys.argv[1]))))
