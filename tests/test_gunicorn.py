"""The service under gunicorn, with two of uvicorn's workers: one application, one database."""

import os
import re
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx2

from tests.server import TICKING, Server, ticks

# As the README has it. With --preload, what is wrong with the settings ends gunicorn; without it,
# workers are started again and again. The socket would be in the home of whoever runs the tests.
OPTIONS = (
    "--worker-class=uvicorn_worker.UvicornWorker",
    "--workers=2",
    "--preload",
    "--no-control-socket",
)

# Two that last: one ends when it is asked to.
LASTING = """
import asyncio
import time
from pathlib import Path

from app.cron import JobContext, every, job
from app.main import create_app

@job(every(hours=1, jitter=0))
def willing(ctx: JobContext) -> str:
    Path("willing").touch()
    while not ctx.stopping:
        time.sleep(0.05)
    return "was asked to"

@job(every(hours=1, jitter=0))
async def endless() -> None:
    Path("endless").touch()
    await asyncio.sleep(3600)

def service():
    return create_app(jobs=[willing, endless])
"""


class Gunicorn(Server):
    """gunicorn with its workers. Its log is a file in the folder."""

    def __init__(self, folder: Path, app: str = "service:service()", **environment: str) -> None:
        """Start it on a free port."""
        self.folder = folder
        super().__init__(
            ["gunicorn", app, *OPTIONS, "--bind=127.0.0.1:0"],
            folder=folder,
            log=folder / "log",
            **{
                "DATABASE_URL": f"sqlite:///{folder}/app.db",
                "CRON_LEASE_SECONDS": "5",
                **environment,
            },
        )

    def url(self) -> str:
        """Wait until both workers serve, and return where."""
        self.wait_until(lambda: self.log.count("Application startup complete") >= 2)
        found = re.search(r"Listening at: (http://\S+)", self.log)
        assert found
        return found[1]

    def workers(self) -> list[int]:
        """Return the processes that it has started, those that have ended as well."""
        return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", self.log)]

    def replace(self, worker: int) -> None:
        """Kill this one, and wait until another one has been started."""
        count = len(self.workers())
        os.kill(worker, signal.SIGKILL)
        self.wait_until(lambda: len(self.workers()) > count)

    def select(self, statement: str) -> list[tuple[object, ...]]:
        """Ask the database, from outside."""
        with closing(sqlite3.connect(self.folder / "app.db")) as database:
            return database.execute(statement).fetchall()


def test_it_serves_and_ends_without_a_word_of_warning(tmp_path: Path) -> None:
    """Sessions can be made and read; SIGTERM ends all in order, with code 0."""
    with Gunicorn(tmp_path, "app.main:create_app()") as gunicorn:
        url = gunicorn.url()
        created = httpx2.post(
            f"{url}/sessions", json={"user": "ana", "ttl_seconds": 60}, trust_env=False
        ).raise_for_status()
        # Each by a connection of its own, so that now one worker answers, now the other.
        paths = [f"/sessions/{created.json()['id']}"] * 10 + ["/health/live", "/health/ready"]
        answers = [httpx2.get(f"{url}{path}", trust_env=False) for path in paths]
        code, seconds = gunicorn.end_by(signal.SIGTERM)
    assert [answer.status_code for answer in answers] == [200] * 12
    assert [answer.json() for answer in answers[:10]] == [created.json()] * 10
    assert code == 0
    assert seconds < 10
    assert gunicorn.log.count("Application shutdown complete") == 2
    assert re.findall(r"(?i).*(?:warn|error\]|critical|traceback).*", gunicorn.log) == []


def test_both_workers_schedule_and_each_run_is_made_once(tmp_path: Path) -> None:
    """The database knows both, and all the runs that the file has, in order."""
    (tmp_path / "service.py").write_text(TICKING)
    with Gunicorn(tmp_path) as gunicorn:
        gunicorn.url()
        gunicorn.wait_until(lambda: len(ticks(tmp_path)) >= 6)
        gunicorn.end_by(signal.SIGTERM)
        processes = gunicorn.select("SELECT owner FROM cron_process")
        runs = gunicorn.select("SELECT run_no, outcome FROM cron_run ORDER BY run_no")
    numbers = [number for number, _ in ticks(tmp_path)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert runs == [(number, "ok") for number in numbers]
    owners = " ".join(str(owner) for (owner,) in processes)
    assert len(processes) == 2
    assert all(f"-{pid}-" in owners for pid in gunicorn.workers())


def test_killed_workers_are_replaced_and_the_jobs_go_on(tmp_path: Path) -> None:
    """One after the other, both: in the end the new ones make the runs, still each of them once."""
    (tmp_path / "service.py").write_text(TICKING)
    with Gunicorn(tmp_path) as gunicorn:
        gunicorn.url()
        gunicorn.wait_until(lambda: len(ticks(tmp_path)) >= 2)
        first = gunicorn.workers()
        for worker in first:
            gunicorn.replace(worker)
        gunicorn.wait_until(lambda: ticks(tmp_path)[-1][1] not in first)
        answer = httpx2.get(f"{gunicorn.url()}/health/ready", trust_env=False)
        code, _ = gunicorn.end_by(signal.SIGTERM)
        ended_well = gunicorn.select("SELECT run_no FROM cron_run WHERE outcome = 'ok'")
    assert answer.status_code == 200
    assert code == 0
    numbers = [number for number, _ in ticks(tmp_path)]
    assert numbers == sorted(set(numbers))
    assert {number for (number,) in ended_well} <= set(numbers)


def test_runs_in_progress_are_asked_to_stop_and_then_cut_short(tmp_path: Path) -> None:
    """All within the grace and a little: then gunicorn ends, with code 0."""
    (tmp_path / "service.py").write_text(LASTING)
    with Gunicorn(tmp_path, CRON_GRACE_SECONDS="1") as gunicorn:
        gunicorn.url()
        gunicorn.wait_until(lambda: all((tmp_path / n).exists() for n in ("willing", "endless")))
        code, seconds = gunicorn.end_by(signal.SIGTERM)
        runs = gunicorn.select("SELECT name, outcome, note FROM cron_run ORDER BY name")
    assert code == 0
    assert seconds < 10
    assert runs == [("endless", "interrupted", ""), ("willing", "interrupted", "was asked to")]
    assert "Traceback" not in gunicorn.log


def test_a_wrong_setting_ends_it_in_one_line(tmp_path: Path) -> None:
    """It says which variable, and ends with code 1."""
    with Gunicorn(tmp_path, "app.main:create_app()", CRON_THREADS="zero") as gunicorn:
        assert gunicorn.wait_for_end() == 1
    [line] = gunicorn.log.splitlines()
    assert line.startswith("SettingsError: CRON_THREADS='zero': ")
