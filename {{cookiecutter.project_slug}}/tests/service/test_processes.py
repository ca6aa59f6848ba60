"""The service as a process: how it starts, how it refuses to, and how it ends."""

import json
import re
import signal
import socket
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import URL

from support import on_postgres
from support.databases import name_of
from support.process import FreshServer, Server, free_port, get, http_client, post

HIDDEN = "hidden"

# uvicorn ends by the signal that it got: SIGTERM, which a shell shows as 143.
BY_SIGTERM = -15


def test_it_serves_and_runs_its_jobs(tmp_path: Path) -> None:
    """In an empty folder: sessions are kept in data/app.db there, and a job has soon run."""
    seed = "137"  # with it, the first run comes after 0.04 s
    with FreshServer(tmp_path, CRON_SEED=seed) as server:
        with http_client(server.url()) as client:
            created = client.post("/sessions", json={"user": "ana", "ttl_seconds": 60})
            read = client.get(f"/sessions/{created.json()['id']}")
            live, ready = client.get("/health/live"), client.get("/health/ready")
        server.wait_for(r"expire_sessions run 1: ok, deleted 0")
    assert read.json() == created.json()
    assert (live.status_code, ready.status_code) == (200, 200)
    assert (tmp_path / "data" / "app.db").exists()


@on_postgres
def test_it_serves_from_a_server_of_postgres(tmp_path: Path, url: URL) -> None:
    """DATABASE_URL is all that it needs. It makes no file, and its log shows no password."""
    url = url.set(password=url.password or HIDDEN)
    named = url.render_as_string(hide_password=False)
    with Server(tmp_path, DATABASE_URL=named, CRON_SEED="137") as server:
        with http_client(server.url()) as client:
            created = client.post("/sessions", json={"user": "ana", "ttl_seconds": 60})
            read = client.get(f"/sessions/{created.json()['id']}")
            live, ready = client.get("/health/live"), client.get("/health/ready")
        server.wait_for(r"expire_sessions run 1: ok, deleted 0")
        code, _ = server.end_by(signal.SIGINT)
    assert read.json() == created.json()
    assert (live.status_code, ready.status_code, code) == (200, 200, 0)
    assert re.search(
        rf"cron: \d+ jobs?, {re.escape(name_of(url))}, lease 30 s, next", server.output
    )
    assert str(url.password) not in server.output
    assert not (tmp_path / "data").exists()


@on_postgres
def test_a_server_that_refuses_ends_it_in_one_line(tmp_path: Path, url: URL) -> None:
    """It names the database and says why, without the password, and ends with code 1."""
    url = url.set(database="nowhere", password=url.password or HIDDEN)
    with Server(tmp_path, DATABASE_URL=url.render_as_string(hide_password=False)) as server:
        assert server.wait_for_end() == 1
    [line] = server.output.splitlines()
    assert line.startswith(f"DatabaseError: {name_of(url)}: connection failed: ")
    assert line.endswith('FATAL: database "nowhere" does not exist')
    assert str(url.password) not in line


def test_ctrl_c_ends_it_with_code_0(tmp_path: Path) -> None:
    """Whoever presses Ctrl-C wanted that: it is no failure."""
    with Server(tmp_path) as server:
        server.url()
        code, _ = server.end_by(signal.SIGINT)
    assert code == 0
    assert "Traceback" not in server.output


def test_all_its_lines_are_json_where_that_is_wanted(tmp_path: Path) -> None:
    """With LOG_FORMAT=json the lines of uvicorn, those of requests too, are objects as well."""
    with Server(tmp_path, LOG_FORMAT="json", CRON_ENABLED="false") as server:
        get(f"{server.url()}/sessions/none?a=%22")
        server.end_by(signal.SIGINT)
    loggers = {json.loads(line)["logger"] for line in server.output.splitlines()}
    assert loggers == {"app.main", "uvicorn.error", "uvicorn.access"}


def test_two_that_start_together_share_a_new_file(tmp_path: Path) -> None:
    """Both serve, and what one has written the other reads."""
    with Server(tmp_path) as one, Server(tmp_path) as two:
        created = post(f"{one.url()}/sessions", {"user": "ana", "ttl_seconds": 60})
        read = get(f"{two.url()}/sessions/{created.json()['id']}")
    assert read.json() == created.json()


def test_a_wrong_setting_ends_it_in_one_line(tmp_path: Path) -> None:
    """It says which variable, and ends with code 1."""
    with FreshServer(tmp_path, CRON_THREADS="zero") as server:
        assert server.wait_for_end() == 1
    [line] = server.output.splitlines()
    assert line.startswith("SettingsError: CRON_THREADS='zero': ")


def test_a_file_env_that_cannot_be_read_ends_it_in_one_line(tmp_path: Path) -> None:
    """It is no traceback that tells which file it is."""
    (tmp_path / ".env").write_bytes(b"LOG_LEVEL=\xff\n")
    with Server(tmp_path) as server:
        code = server.wait_for_end()
    assert code == 1
    assert re.fullmatch(r"SettingsError: \.env cannot be read: [^\n]+\n", server.output)


def test_a_folder_that_cannot_be_made_ends_it_in_one_line(tmp_path: Path) -> None:
    """The path of the database leads through a file: it names the path, and ends with code 1."""
    (tmp_path / "data").write_text("no folder")
    with Server(tmp_path) as server:
        assert server.wait_for_end() == 1
    [line] = server.output.splitlines()
    assert line.startswith(f"DatabaseError: {tmp_path}/data/app.db: ")


def test_a_file_that_is_no_database_ends_it_in_one_line(tmp_path: Path) -> None:
    """It names the file, leaves it as it is, and ends with code 1."""
    (tmp_path / "app.db").write_text("no database " * 1_000)
    with Server(tmp_path, DATABASE_URL="sqlite:///app.db") as server:
        assert server.wait_for_end() == 1
    assert server.output == f"DatabaseError: {tmp_path}/app.db: file is not a database\n"
    assert (tmp_path / "app.db").read_text() == "no database " * 1_000


def test_a_job_that_cannot_work_ends_it_in_one_line(tmp_path: Path) -> None:
    """It names the job and what is wrong with it, and ends with code 1."""
    (tmp_path / "service.py").write_text("""
from app.cron import every, job
from app.main import create_app

@job(every(minutes=5, jitter=30))
async def tidy() -> None: ...

def service():
    return create_app(jobs=[tidy])
""")
    with Server(tmp_path, "service:service") as server:
        assert server.wait_for_end() == 1
    [line] = server.output.splitlines()
    assert line.startswith("JobError: job 'tidy': jitter=30: jitter is a fraction")


def test_jobs_are_stopped_where_the_port_is_taken(tmp_path: Path) -> None:
    """uvicorn notices only when jobs have begun: they end as at any shutdown, and so it fails."""
    (tmp_path / "service.py").write_text("""
import asyncio
from contextlib import asynccontextmanager

from app.cron import every, job
from app.main import create_app

begun = asyncio.Event()

@job(every(minutes=5, jitter=0))
async def tidy() -> None:
    print("tidy has begun")
    begun.set()
    try:
        await asyncio.sleep(3600)
    finally:
        print("tidy has ended")

def service():
    app = create_app(jobs=[tidy])
    lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def wait_for_the_job(app):
        async with lifespan(app) as state:
            await begun.wait()
            yield state

    app.router.lifespan_context = wait_for_the_job
    return app
""")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Server(tmp_path, "service:service", port=port, CRON_GRACE_SECONDS="0") as server:
            assert server.wait_for_end() > 0
    assert "address already in use" in server.output
    assert "tidy has begun\n" in server.output
    assert "tidy has ended\n" in server.output
    assert "tidy run 1: interrupted" in server.output


def test_sigterm_lets_a_run_finish_within_the_grace(tmp_path: Path) -> None:
    """The run has the time it needs; then uvicorn ends by the signal, without waiting longer."""
    (tmp_path / "service.py").write_text("""
from app.cron import JobContext, every, job
from app.main import create_app

@job(every(minutes=5, jitter=0))
async def tidy(ctx: JobContext) -> str:
    print("tidy has begun")
    await ctx.clock.sleep(0.5)
    return "and ended"

def service():
    return create_app(jobs=[tidy])
""")
    with Server(tmp_path, "service:service", CRON_GRACE_SECONDS="30") as server:
        server.url()
        server.wait_for("tidy has begun")
        code, seconds = server.end_by(signal.SIGTERM)
    assert code == BY_SIGTERM
    assert seconds < 10
    assert "tidy run 1: ok, and ended" in server.output


def test_a_platform_says_the_port(tmp_path: Path) -> None:
    """The server is there. What else may say it is in `test_command.py`."""
    port = free_port()
    with Server(tmp_path, port=None, PORT=f"{port}") as server:
        assert server.url() == f"http://127.0.0.1:{port}"


def test_a_client_that_does_not_end_its_request_holds_it_for_two_seconds(tmp_path: Path) -> None:
    """Its jobs hear of the end only after the clients: without a limit, from the SIGKILL."""
    with Server(tmp_path) as server:
        url = server.url()
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"POST /sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
            get(f"{url}/health/live")  # by then it has read the other
            code, seconds = server.end_by(signal.SIGTERM)
    assert code == BY_SIGTERM
    assert 2 <= seconds < 4
    assert "Application shutdown complete" in server.output


@pytest.mark.parametrize(
    ("sent", "expected"), [(signal.SIGTERM, BY_SIGTERM), (signal.SIGINT, 0)], ids=["TERM", "INT"]
)
def test_jobs_that_ignore_every_request_to_stop_do_not_hold_it(
    tmp_path: Path, sent: signal.Signals, expected: int
) -> None:
    """It ends within the grace and 2 s, and its log names who is left behind.

    The time is that of its own log: how soon Python then ends depends on how busy the machine is.
    After SIGINT, and after SIGTERM in a container, uvicorn leaves the end to asyncio.run, which
    waits for all tasks that it knows of.
    """
    (tmp_path / "service.py").write_text("""
import asyncio
import time

from app.cron import every, job
from app.main import create_app

@job(every(minutes=5, jitter=0))
def deaf() -> None:
    print("deaf has begun")
    while True:
        time.sleep(0.05)

@job(every(minutes=5, jitter=0))
async def stubborn() -> None:
    print("stubborn has begun")
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

def service():
    return create_app(jobs=[deaf, stubborn])
""")
    with Server(tmp_path, "service:service", CRON_GRACE_SECONDS="0.2", LOG_FORMAT="json") as server:
        server.url()
        server.wait_for("deaf has begun")
        server.wait_for("stubborn has begun")
        code, _ = server.end_by(sent)
    assert code == expected
    told = [json.loads(line) for line in server.output.splitlines() if line.startswith("{")]
    at = {line["message"]: datetime.fromisoformat(line["time"]) for line in told}
    seconds = (at["Application shutdown complete."] - at["Shutting down"]).total_seconds()
    assert 1.2 <= seconds < 2.2
    assert "deaf run 1 does not end; it is left behind" in server.output
    assert "stubborn run 1 does not end; it is left behind" in server.output
