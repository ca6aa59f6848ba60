"""What the READMEs tell people to write and to type is written and typed here, word for word."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine import COMPOSE_OVERRIDE, compose_environment, image_of, unique
from tests.readme import asking_job, blocks, first_job, session_job, write
from tests.server import REAL_SECONDS_MAX, wait_until
from tools.bake import TEMPLATE, bake, copy_template
from tools.postgres import free_port

VENV = Path(sys.prefix)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bake the default service. Its .venv is that of these tests: nothing is installed."""
    project = bake(tmp_path_factory.mktemp("readme"))
    (project / ".venv").mkdir()
    for part in VENV.iterdir():
        (project / ".venv" / part.name).symlink_to(part)
    (project / ".venv" / "installed").touch()
    return project


def run(command: str, folder: Path, **environment: str) -> str:
    """Run a line as a shell does; it must succeed."""
    path = f"{VENV / 'bin'}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=REAL_SECONDS_MAX,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    return result.stdout


def is_served(port: str) -> bool:
    """Say whether somebody listens on that port of the loopback."""
    try:
        socket.create_connection(("127.0.0.1", int(port)), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def started(command: str, folder: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a line that goes on, and end it, with all that it has started, by Ctrl-C."""
    process = subprocess.Popen(
        shlex.split(command),
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(REAL_SECONDS_MAX)


def test_a_service_is_generated_as_the_readme_says(tmp_path: Path) -> None:
    """The lines under "Generate yours", with every question answered by Enter."""
    template = copy_template(tmp_path / "template")
    [commands] = [block for block in blocks(TEMPLATE / "README.md", "sh") if "output-dir" in block]
    generate = [line for line in commands.splitlines() if "pip install" not in line]
    for command in generate:
        run(f"yes '' | {command}", template, HOME=str(tmp_path))
    assert (tmp_path / "my-service" / "app" / "main.py").is_file()


def test_the_make_targets_of_the_readmes_exist() -> None:
    """Each `make x` that a README names is a target of the Makefile beside it."""
    for folder in (TEMPLATE, TEMPLATE / "{{cookiecutter.project_slug}}"):
        text = (folder / "README.md").read_text("utf-8")
        named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M))
        targets = set(re.findall(r"^([a-z-]+):", (folder / "Makefile").read_text("utf-8"), re.M))
        assert named
        assert named <= targets


def test_the_service_answers_as_its_readme_says(project: Path) -> None:
    """`make run`, and in another terminal the requests."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed: the requests of the service's README")
    serve, requests = blocks(project / "README.md", "sh")[:2]
    port = str(free_port())
    with started(serve.strip(), project, UVICORN_PORT=port):
        wait_until(lambda: is_served(port), "it serves")
        create, live, ready = requests.replace("127.0.0.1:8000", f"127.0.0.1:{port}").splitlines()
        assert '"user":"ada"' in run(create, project, NO_PROXY="*")
        assert '"status":"ok"' in run(live, project, NO_PROXY="*")
        assert '"status":"ok"' in run(ready, project, NO_PROXY="*")


def test_the_container_is_used_as_the_readme_says(tmp_path: Path) -> None:
    """It is healthy, its jobs are listed, and it is stopped. It has been built before, by make.

    Compose cannot build where the engine is old or needs another network for that.
    """
    service = bake(tmp_path, project_slug=unique("readme-test"))
    (service / "override.yaml").write_text(COMPOSE_OVERRIDE)
    [lines] = [block for block in blocks(service / "README.md", "sh") if "compose" in block]
    environment = {**compose_environment(), "COMPOSE_FILE": "compose.yaml:override.yaml"}
    exit_codes = "docker compose ps --all --format '{{.ExitCode}}'"
    with image_of(service):
        try:
            start, look, stop = lines.splitlines()
            run(start.replace("--build", "--no-build"), service, **environment)
            assert "expire_sessions" in run(look, service, **environment)
            run(stop, service, **environment)
            assert run(exit_codes, service, **environment) == "0\n"
        finally:
            run("docker compose down --volumes", service, **environment)


def test_a_commit_is_checked_as_the_readme_says(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pre-commit install`: a commit with a line that lint refuses is not made."""
    copy = shutil.copytree(project, tmp_path / "copy", symlinks=True)
    identity = "-c user.name=ada -c user.email=ada@example.com"
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    run(f"git init --quiet && git add . && git {identity} commit --quiet -m 'all'", copy)
    assert "`pre-commit install`" in (copy / "README.md").read_text("utf-8")
    run("pre-commit install", copy)
    (copy / "app" / "jobs" / "bad.py").write_text("import os\n")
    run(f"git add . && ! git {identity} commit --quiet -m 'bad'", copy)
    (copy / "app" / "jobs" / "bad.py").write_text('"""Good."""\n')
    run(f"git add . && git {identity} commit --quiet -m 'good'", copy)


def test_a_job_is_added_as_the_readme_says(project: Path, tmp_path: Path) -> None:
    """Two files and a test, as they stand there, and `make check` is content."""
    copy = shutil.copytree(project, tmp_path / "copy", symlinks=True)
    files = first_job(copy)
    write(files, copy)
    assert "make check\n" in blocks(copy / "README.md", "sh")
    # The whole suite with it runs in test_workflow.py; here it is about what was added.
    output = run("make lint types && .venv/bin/python -m pytest tests/jobs -v", copy)
    [test] = re.findall(r"def (test_\w+)", files[-1])
    for database in ("sqlite", "postgres"):
        assert f"{test}[{database}] PASSED" in output
    assert "test_a_job_keeps_the_contract[end_guest_sessions] PASSED" in output


def migrate(service: Path) -> str:
    """Return the commands by which its README writes a migration."""
    text = (service / "README.md").read_text("utf-8")
    commands = re.findall(r"`(\.venv/bin/alembic [^`]+)`", text)
    assert len(commands) == 2
    return " && ".join(commands)


# What the README leaves to its reader.
RATES_TEST = '''"""Rates, as the service knows them that is asked."""

from sqlalchemy import select

from app.cron.database import Database
from app.jobs.fetch_rates import fetch_rates
from app.rates import rates
from support import FakeClock, RunJob


async def test_the_newest_are_kept(db: Database, clock: FakeClock, run_job: RunJob) -> None:
    """A second run replaces what the first one has written."""
    await run_job(fetch_rates)
    clock.step(hours=1)
    run = await run_job(fetch_rates)
    assert (run.outcome, run.note) == ("ok", "fetched 2")
    rows = await db.read(lambda connection: connection.execute(select(rates)).all())
    assert sorted(rows) == [("CHF", 0.94, run.started_at), ("USD", 1.08, run.started_at)]
'''


def test_a_job_that_asks_a_service_is_added_as_the_readme_says(
    project: Path, tmp_path: Path
) -> None:
    """A table with its migration, a client, a job, and what stands for the service in tests."""
    copy = shutil.copytree(project, tmp_path / "copy", symlinks=True)
    write(asking_job(copy), copy)
    jobs = copy / "app" / "jobs" / "__init__.py"
    line = "from .fetch_rates import fetch_rates\nfrom .nightly_report"
    text = jobs.read_text("utf-8").replace("from .nightly_report", line)
    jobs.write_text(text.replace("= [", "= [fetch_rates, "), "utf-8")
    test = copy / "tests" / "jobs" / "test_fetch_rates.py"
    test.write_text(RATES_TEST, "utf-8")
    run(migrate(copy), copy)
    tests = f"tests/jobs/test_every_job.py {test}"
    output = run(f"make lint types && .venv/bin/python -m pytest -v {tests}", copy)
    assert "test_a_job_keeps_the_contract[fetch_rates] PASSED" in output
    for database in ("sqlite", "postgres"):
        assert f"test_the_newest_are_kept[{database}] PASSED" in output


def test_a_migration_is_written_as_the_readme_says(project: Path, tmp_path: Path) -> None:
    """It knows a table of a module that nobody imports, is clean, and brings all that is new."""
    copy = shutil.copytree(project, tmp_path / "copy", symlinks=True)
    table, *_ = asking_job(copy)
    write([table], copy)
    run(migrate(copy), copy)
    run("make lint && .venv/bin/alembic upgrade head && .venv/bin/alembic check", copy)
    [migration] = set((copy / "app" / "migrations" / "versions").glob("*what_changes*"))
    assert '"rates"' in migration.read_text("utf-8")


def test_the_contract_complains_as_the_readme_says(project: Path, tmp_path: Path) -> None:
    """Of the README's job, with the mistake in it that the README tells of."""
    copy = shutil.copytree(project, tmp_path / "copy", symlinks=True)
    write(first_job(copy), copy)
    file = copy / "app" / "jobs" / "end_guest_sessions.py"
    signature = "async def end_guest_sessions(ctx: JobContext) -> str:\n"
    body = f"{signature}    __import__('time').sleep(1)\n"
    file.write_text(file.read_text("utf-8").replace(signature, body), "utf-8")
    [message] = [block for block in blocks(copy / "README.md", "text") if block.startswith("job ")]
    output = run("! .venv/bin/python -m pytest tests/jobs/test_every_job.py", copy)
    assert message in output
    assert len(output.splitlines()) < 50  # or nobody would find it
    assert "FAILED tests/jobs/test_every_job.py" in output


# What the README leaves to its reader: a test, as that of the README's first job.
SESSION_TEST = '''"""A job with a session of its own."""

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest
from httpx2 import AsyncClient

from app.jobs.end_guest_sessions import end_guest_sessions
from app.main import create_app
from app.settings import Settings
from support import FakeClock, fixed, notes, on_postgres, query, serving

pytestmark = on_postgres


def served(settings: Settings, clock: FakeClock) -> AbstractAsyncContextManager[AsyncClient]:
    """The app, whose job comes after five seconds."""
    app = create_app(settings, jobs=[end_guest_sessions], clock=clock, random=fixed(0.5))
    return serving(app, clock)


async def end_of_run(caplog: pytest.LogCaptureFixture) -> str:
    """How the run has ended. The clock does not wait for what waits for a socket."""
    async with asyncio.timeout(30):
        while not notes(caplog, "end_guest_sessions"):  # noqa: ASYNC110 -- nobody tells
            await asyncio.sleep(0.01)
    [note] = notes(caplog, "end_guest_sessions")
    return note


async def test_it_writes(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """As long as its run is the last one."""
    async with served(settings, clock) as client:
        await client.post("/sessions", json={"user": "guest", "ttl_seconds": 86_400})
        await clock.advance(seconds=5)
        assert await end_of_run(caplog) == "ok"
        assert query(settings, "SELECT id FROM sessions") == []


OVERTAKE = """
    CREATE FUNCTION overtake() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN UPDATE cron_job SET owner = 'another'; RETURN OLD; END $$
"""


async def test_the_fence_stands(
    clock: FakeClock, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """What a run writes that was overtaken is not committed."""
    async with served(settings, clock) as client:
        await client.post("/sessions", json={"user": "guest", "ttl_seconds": 86_400})
        query(settings, OVERTAKE)
        each = "BEFORE DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION overtake()"
        query(settings, f"CREATE TRIGGER overtake {each}")
        await clock.advance(seconds=5)
        assert (await end_of_run(caplog)).startswith("error, LeaseLost")
        assert len(query(settings, "SELECT id FROM sessions")) == 1
'''


def test_an_async_session_is_added_as_the_readme_says(project: Path, tmp_path: Path) -> None:
    """The files and the changed line, as they stand there: lint, types and a test are content."""
    copy = shutil.copytree(project, tmp_path / "copy", symlinks=True)
    write(session_job(copy), copy)
    old, new = re.findall(r"`(async with .*?\()`", (copy / "README.md").read_text("utf-8"))
    main = copy / "app" / "main.py"
    assert old in main.read_text()
    text = main.read_text().replace(old, new)
    session = "from app.session import open_engine\nfrom app.sessions"
    main.write_text(text.replace("from app.sessions", session))
    test = copy / "tests" / "jobs" / "test_end_guest_sessions.py"
    test.write_text(SESSION_TEST)
    run(".venv/bin/ruff format", copy)  # the changed line has become too long
    output = run(f"make lint types && .venv/bin/python -m pytest {test} -v", copy)
    assert "2 passed" in output
