"""Three processes of the service on one machine, started as compose.yaml says.

All that is to be seen happens once, in `story`; each test looks at one thing.
"""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.engine import (
    NO_RIGHTS,
    Container,
    compose_environment,
    docker,
    has_image,
    need_engine,
    wait_until,
)
from tests.machine import lacking
from tools.bake import bake

pytestmark = pytest.mark.xdist_group("compose")

SLUG = "compose-test"

BASE = "python:3.13-slim"

REPLICAS = 3

INTERVAL_SECONDS, JITTER = 1.0, 0.3

TICKS = 20

# Bodies begin a little after their claims, one later than the other: that much is no second start.
LATE_SECONDS = 0.3

JOB = f'''"""A job that tells of its runs."""

import json
import socket
from pathlib import Path

from app.cron import JobContext, every, job


@job(every(seconds={INTERVAL_SECONDS:g}, jitter={JITTER}))
async def tick(ctx: JobContext) -> None:
    """Add a line: which run, where, when."""
    line = [ctx.run_no, socket.gethostname(), ctx.clock.monotonic()]
    with Path("/data/ticks").open("a") as ticks:
        ticks.write(json.dumps(line) + "\\n")
'''

JOBS = '''"""Your jobs."""

from .tick import tick

JOBS = [tick]
'''

# The engine of the tests may have no network, and the ports of this machine are not ours.
OVERRIDE = """
services:
  app:
    network_mode: none
    ports: !reset []
"""

# Its process, seen from the machine: within the container nobody can kill the first one.
KILL = "import os, signal, sys; os.kill(int(sys.argv[1]), signal.SIGKILL)"

Tick = tuple[int, str, float]
"""A run's number, its host, and when it began: seconds of the machine's clock."""


@dataclass
class Story:
    """What was seen."""

    hosts: set[str]
    ticks: list[Tick]
    after_kill: list[Tick]
    killed: str
    restarts: list[int]
    limits: dict[str, str]
    attempts: dict[str, bool]


class Compose:
    """The project of these tests."""

    def __init__(self, service: Path) -> None:
        """Start nothing yet."""
        self._service = service

    def __call__(self, *arguments: str) -> str:
        """Run a command of Compose's, which must succeed. Return its output."""
        files = os.pathsep.join(["compose.yaml", "override.yaml"])
        done = subprocess.run(
            ["docker", "compose", "--project-name", SLUG, *arguments],
            cwd=self._service,
            env={**compose_environment(), "COMPOSE_FILE": files},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"compose {' '.join(arguments)}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bake a service whose job tells of its runs."""
    service = bake(tmp_path_factory.mktemp("compose"), project_slug=SLUG)
    (service / "app" / "jobs" / "tick.py").write_text(JOB)
    (service / "app" / "jobs" / "__init__.py").write_text(JOBS)
    (service / "override.yaml").write_text(OVERRIDE)
    (service / ".env").write_text("LOG_LEVEL=DEBUG\nUVICORN_HOST=127.0.0.2\nUVICORN_PORT=1\n")
    return service


@pytest.fixture(scope="module")
def story(service: Path) -> Iterator[Story]:
    """Start three, kill one, watch."""
    need_engine()
    if not has_image(BASE):
        lacking(f"the image {BASE} cannot be had here, Compose is untested")
    subprocess.run(["make", "image"], cwd=service, check=True, capture_output=True)
    run = Compose(service)
    try:
        run("up", "--detach", "--no-build", "--wait", "--scale", f"app={REPLICAS}")
        yield live([Container(name) for name in run("ps", "--quiet").split()])
    finally:
        run("down", "--volumes", "--remove-orphans")
        docker("image", "rm", "--force", SLUG)


def live(containers: list[Container]) -> Story:
    """Watch three, kill one and watch again."""
    hosts = {container.inspect("Config.Hostname"): container for container in containers}

    def ticks() -> list[Tick]:
        text = containers[0].run("cat", "/data/ticks")
        return [tuple(json.loads(line)) for line in text.splitlines()]

    def is_enough(since: int) -> bool:
        seen = ticks()[since:]
        return len(seen) >= TICKS and {host for _, host, _ in seen} == hosts.keys()

    containers[0].wait_until_healthy()
    wait_until(lambda: is_enough(0), "each has run the job")
    quiet = ticks()
    killed, container = list(hosts.items())[-1]
    docker(
        *("run", "--rm", "--pid", "host", "--user", "0", "--network", "none"),
        *(SLUG, "python", "-c", KILL, str(container.inspect("State.Pid"))),
    )
    wait_until(lambda: container.inspect("RestartCount") == 1, "it has been started again")
    container.wait_until_healthy()
    since = len(ticks())
    wait_until(lambda: is_enough(since), "each has run the job again")
    return Story(
        hosts=set(hosts),
        ticks=quiet,
        after_kill=ticks()[since:],
        killed=killed,
        restarts=[each.inspect("RestartCount") for each in containers],
        limits=container.limits(),
        attempts={
            "write where all may": container.succeeds("touch", "/var/tmp/file"),
            "write to the code": container.succeeds("touch", "/app/file"),
            "write to /tmp": container.succeeds("touch", "/tmp/file"),
            "write to /data": container.succeeds("touch", "/data/file"),
            "log as .env says": "DEBUG" in container.run("env"),
        },
    )


def problems(ticks: Sequence[Tick]) -> list[str]:
    """Return what contradicts one claim per due time."""
    found = []
    numbers = sorted(number for number, _, _ in ticks)
    for before, after in pairwise(numbers):
        if after == before:
            found.append(f"run {after} was made twice")
        elif after != before + 1:
            found.append(f"runs {before + 1} to {after - 1} were claimed and not made")
    starts = sorted((start, number) for number, _, start in ticks)
    for (before_start, before), (start, number) in pairwise(starts):
        if start - before_start < INTERVAL_SECONDS * (1 - JITTER) - LATE_SECONDS:
            found.append(f"run {number} began {start - before_start:.2f} s after run {before}")
    return found


def test_each_due_time_is_claimed_by_one_of_three(story: Story) -> None:
    """No run is made twice, none is left out, and none begins before its time."""
    assert len(story.ticks) >= TICKS
    assert problems(story.ticks) == []


def test_all_three_take_part(story: Story) -> None:
    """None is idle for long."""
    assert len(story.hosts) == REPLICAS
    assert {host for _, host, _ in story.ticks} == story.hosts


def test_who_is_killed_is_started_again(story: Story) -> None:
    """By the engine, once, and it takes part again; the others have gone on."""
    assert sorted(story.restarts) == [0, 0, 1]
    assert story.killed in {host for _, host, _ in story.after_kill}
    assert problems(story.after_kill) == []


def test_it_can_write_nothing_but_its_data_and_gain_no_rights(story: Story) -> None:
    """The root file system is read-only; what is temporary goes to memory."""
    assert story.limits == NO_RIGHTS
    assert story.attempts == {
        "write where all may": False,
        "write to the code": False,
        "write to /tmp": True,
        "write to /data": True,
        "log as .env says": True,
    }


def test_each_of_ten_processes_has_a_port_of_this_machine(service: Path) -> None:
    """`--scale app=10` would find enough of them; they are not open to other machines."""
    config = subprocess.run(
        ["docker", "compose", "--file", "compose.yaml", "config", "--format", "json"],
        cwd=service,
        env=compose_environment(),
        check=True,
        capture_output=True,
    )
    app: dict[str, Any] = json.loads(config.stdout)["services"]["app"]
    [port] = app["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", "8000-8009", 8000)
    assert app["environment"]["UVICORN_PORT"] == "8000"
    assert app["environment"]["UVICORN_HOST"] == "0.0.0.0"


GOOD = [(number, f"host {number % 3}", number * 1.0) for number in range(1, 30)]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({}, []),
        ({8: (7, "host 0", 8.0)}, ["run 7 was made twice"]),
        ({8: (8, "host 0", 7.3)}, ["run 8 began 0.30 s after run 7"]),
    ],
    ids=["good", "twice", "too early"],
)
def test_the_judge_sees_what_is_wrong(changed: dict[int, Tick], problem: list[str]) -> None:
    """Records known to be good, and known to be bad."""
    ticks = [changed.get(tick[0], tick) for tick in GOOD]
    assert problems(ticks)[: len(problem)] == problem
    assert bool(problems(ticks)) == bool(problem)
