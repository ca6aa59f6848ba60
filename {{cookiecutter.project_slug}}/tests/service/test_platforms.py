"""The service as others start it: by FastAPI's command, in any zone, as a user without a name."""

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from support.process import SERVICE, Command, Process, Server, get, post

# With it, the first run of expire_sessions comes 0.04 s after the start.
SEED = "137"

# What stands in TZ. The third one needs no files of zones, which a small image may not have.
ZONES = ["Pacific/Kiritimati", "America/St_Johns", "<+14>-14", None]

# A number that no user has, and the commands that turn into it whatever stands after them. The
# first serves root, where anyone may read Python and the code; the second one whoever may have user
# namespaces: outside of it, files are still read and written as by who runs the tests.
NAMELESS = 54_321
CHANGES = (
    ["setpriv", f"--reuid={NAMELESS}", f"--regid={NAMELESS}", "--clear-groups"],
    ["unshare", "--user", f"--map-user={NAMELESS}", f"--map-group={NAMELESS}"],
)

# Says so if it has no name, can read the code and what is installed, and can write in its folder.
ATTEMPT = """
import os, pathlib, pwd, sys
import uvicorn
(pathlib.Path.cwd() / "attempt").write_text(pathlib.Path(sys.argv[1]).read_text())
try:
    pwd.getpwuid(os.getuid())
except KeyError:
    print("nameless")
"""


class FastAPICommand(Server):
    """`fastapi run`, in a folder that has the service's pyproject.toml."""

    def __init__(self, folder: Path, **environment: str) -> None:
        shutil.copy(SERVICE / "pyproject.toml", folder)
        command = ["fastapi", "run", "--host", "127.0.0.1", "--port", "0"]
        # Its greeting has letters that not every locale knows.
        environment = {"PYTHONUTF8": "1", **environment}
        Process.__init__(self, folder, "-u", "-m", *command, environment=environment)


def cron(folder: Path, *words: str) -> Any:
    """What a command of the shell shows to programs."""
    with Command(folder, *words, "--json") as command:
        code, output = command.end()
        assert code == 0, command.output
    return json.loads(output)


def create_session(url: str) -> Any:
    """Make a session of a minute, and give the answer."""
    new = {"user": "ana", "ttl_seconds": 60}
    return post(f"{url}/sessions", new).raise_for_status().json()


def read_session(url: str, id_: str) -> Any:
    """The session, as a client gets it."""
    return get(f"{url}/sessions/{id_}").raise_for_status().json()


def set_zone(monkeypatch: pytest.MonkeyPatch, zone: str | None) -> None:
    """Let processes that start from now on have this zone, or none."""
    if zone is None:
        monkeypatch.delenv("TZ", raising=False)
    else:
        monkeypatch.setenv("TZ", zone)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder in which any user may write; those of pytest are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder


@pytest.fixture
def nameless(monkeypatch: pytest.MonkeyPatch, open_folder: Path) -> Sequence[str]:
    """How to begin a command that runs as a user whom nothing knows, in `open_folder`."""
    for variable in ("HOME", "LNAME", "LOGNAME", "USER", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    attempt = [sys.executable, "-c", ATTEMPT, str(SERVICE / "app/main.py")]
    for change in CHANGES:
        try:
            finished = subprocess.run(  # noqa: S603 -- our own command
                [*change, *attempt], cwd=open_folder, capture_output=True, text=True
            )
        except OSError:  # there is no such command
            continue
        finally:
            (open_folder / "attempt").unlink(missing_ok=True)
        if finished.stdout == "nameless\n":
            return change
    pytest.skip("no process gets a nameless user here (setpriv, unshare): not tested")


def test_the_command_of_fastapi_serves_and_runs_the_jobs(tmp_path: Path) -> None:
    """`fastapi run` finds the app by the entry point in pyproject.toml. It cannot be told that the
    app is made by a function: uvicorn notices, and goes on. Ctrl-C ends it in order."""
    with FastAPICommand(tmp_path, CRON_SEED=SEED) as server:
        url = server.url()
        created = create_session(url)
        assert read_session(url, created["id"]) == created
        server.wait_for("expire_sessions run 1: ok, deleted 0")
        check_end(server, signal.SIGINT, 0)
    [line] = re.findall(r"(?i)^.*(?:warn|error|critical|traceback).*$", server.output, re.MULTILINE)
    assert line.startswith("WARNING:  ASGI app factory detected. Using it")
    assert (tmp_path / "data/app.db").exists()


def test_sigterm_ends_the_command_of_fastapi_in_order(tmp_path: Path) -> None:
    """With the code that the service has under uvicorn, and its jobs before it."""
    with FastAPICommand(tmp_path) as server:
        server.url()
        check_end(server, signal.SIGTERM, -signal.SIGTERM)


def check_end(server: Server, sent: signal.Signals, expected: int) -> None:
    """It ends by the signal, in order and in time."""
    code, seconds = server.end_by(sent)
    assert code == expected
    assert seconds < 10
    assert "Application shutdown complete" in server.output
    assert "Traceback" not in server.output


@pytest.mark.parametrize("zone", ZONES)
def test_what_is_kept_of_time_is_utc_in_every_zone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str | None
) -> None:
    """The end of a session, and when a run was due, began and ended."""
    set_zone(monkeypatch, zone)
    started = datetime.now(UTC)
    with Server(tmp_path, CRON_SEED=SEED) as server:
        url = server.url()
        server.wait_for("expire_sessions run 1: ok")
        before = datetime.now(UTC)
        created = create_session(url)
        after = datetime.now(UTC)
        assert read_session(url, created["id"]) == created
    expires_at = datetime.fromisoformat(created["expires_at"])
    assert before <= expires_at - timedelta(seconds=60) <= after
    [run] = cron(tmp_path, "history", "expire_sessions")
    due, began, ended = (
        datetime.fromisoformat(run[name]) for name in ("due_at", "started_at", "finished_at")
    )
    assert started <= due <= began <= ended <= before


def test_a_time_of_day_is_that_of_its_own_zone_in_every_zone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At three in Madrid, wherever the process believes to be."""
    with Server(tmp_path) as server:
        server.url()  # from here on, the database knows the next time: none changes it between two
    seen = []
    for zone in ZONES:
        set_zone(monkeypatch, zone)
        seen.append(cron(tmp_path, "next", "nightly_report", "-n", "3"))
    assert seen == seen[:1] * len(ZONES)
    madrid = ZoneInfo("Europe/Madrid")
    times = [datetime.fromisoformat(due["earliest"]).astimezone(madrid) for due in seen[0]]
    assert [f"{time:%H:%M:%S.%f}" for time in times] == ["03:00:00.000000"] * 3


def test_a_user_without_a_name_runs_it(open_folder: Path, nameless: Sequence[str]) -> None:
    """As platforms give each container a number: no account, no home, no name in a variable."""
    with Server(open_folder, before=nameless, CRON_SEED=SEED) as server:
        url = server.url()
        created = create_session(url)
        assert read_session(url, created["id"]) == created
        server.wait_for("expire_sessions run 1: ok, deleted 0")
        code, _ = server.end_by(signal.SIGINT)
    assert code == 0
    assert "Traceback" not in server.output
