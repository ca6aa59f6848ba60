"""Three processes of the service on one machine, started as compose.yaml says.

All that is to be seen happens once, in `story`; each test looks at one thing.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.engine import (
    COMPOSE_OVERRIDE,
    NO_RIGHTS,
    Container,
    base_of,
    compose,
    docker,
    image_of,
    need_image,
    unique,
)
from tests.server import wait_until
from tools.bake import bake

SLUG = unique("compose-test")

REPLICAS = 3

INTERVAL_SECONDS, JITTER = 1.0, 0.3

TICKS = 20

# The store's clock shows microseconds, and those of two containers are one.
CLOCK_SECONDS = 0.001

JOB = f'''"""A job that tells of its runs."""

import json
import socket
from pathlib import Path

from app.cron import JobContext, every, job


@job(every(seconds={INTERVAL_SECONDS:g}, jitter={JITTER}))
async def tick(ctx: JobContext) -> None:
    """Add a line: which run, and where."""
    line = [ctx.run_no, socket.gethostname()]
    with Path("/data/ticks").open("a") as ticks:
        ticks.write(json.dumps(line) + "\\n")
'''

JOBS = '''"""Your jobs."""

from .tick import tick

JOBS = [tick]
'''

# Its process, seen from the machine: within the container nobody can kill the first one.
KILL = "import os, signal, sys; os.kill(int(sys.argv[1]), signal.SIGKILL)"

Tick = tuple[int, str]
"""A run's number, and its host."""


@dataclass
class Story:
    """What was seen."""

    hosts: set[str]
    ticks: list[Tick]
    claims: list[datetime]
    after_kill: list[Tick]
    killed: str
    restarts: list[int]
    limits: dict[str, str]
    attempts: dict[str, bool]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bake a service whose job tells of its runs."""
    service = bake(tmp_path_factory.mktemp("compose"), project_slug=SLUG)
    (service / "app" / "jobs" / "tick.py").write_text(JOB)
    (service / "app" / "jobs" / "__init__.py").write_text(JOBS)
    (service / "override.yaml").write_text(COMPOSE_OVERRIDE)
    (service / ".env").write_text("LOG_LEVEL=DEBUG\nUVICORN_HOST=127.0.0.2\nUVICORN_PORT=1\n")
    return service


@pytest.fixture(scope="module")
def story(service: Path) -> Iterator[Story]:
    """Start three, kill one, watch."""
    run = partial(compose, service, COMPOSE_FILE=f"compose.yaml{os.pathsep}override.yaml")
    with image_of(service):
        try:
            run("up", "--detach", "--no-build", "--wait", "--scale", f"app={REPLICAS}")
            yield live([Container(name) for name in run("ps", "--quiet").split()])
        finally:
            run("down", "--volumes", "--remove-orphans")


def live(containers: list[Container]) -> Story:
    """Watch three, kill one and watch again."""
    hosts = {container.inspect("Config.Hostname"): container for container in containers}

    def ticks() -> list[Tick]:
        text = containers[0].run("cat", "/data/ticks")
        return [tuple(json.loads(line)) for line in text.splitlines()]

    def is_enough(since: int) -> bool:
        seen = ticks()[since:]
        return len(seen) >= TICKS and {host for _, host in seen} == hosts.keys()

    containers[0].wait_until_healthy()
    wait_until(lambda: is_enough(0), "each has run the job")
    quiet = ticks()
    runs = containers[0].history("tick")
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
        claims=[datetime.fromisoformat(run["started_at"]) for run in runs],
        after_kill=ticks()[since:],
        killed=killed,
        restarts=[each.inspect("RestartCount") for each in containers],
        limits=container.limits(),
        attempts={
            "write where all may": container.succeeds("touch", "/var/tmp/file"),
            "write to the code": container.succeeds("touch", "/app/file"),
            "write to /tmp": container.succeeds("touch", "/tmp/file"),
            "write to /data": container.succeeds("touch", "/data/file"),
            "have what .env says": "DEBUG" in container.run("env"),
        },
    )


def problems(ticks: Sequence[Tick]) -> list[str]:
    """Return what contradicts one run for each claim."""
    found = []
    for before, after in pairwise(sorted(number for number, _ in ticks)):
        if after == before:
            found.append(f"run {after} was made twice")
        elif after != before + 1:
            found.append(f"after run {before} comes run {after}")
    return found


def test_each_due_time_is_claimed_by_one_of_three(story: Story) -> None:
    """No run is made twice, and none is left out."""
    assert len(story.ticks) >= TICKS
    assert problems(story.ticks) == []


def test_no_claim_comes_before_its_time(story: Story) -> None:
    """Whoever made the one before."""
    gaps = [(after - before).total_seconds() for before, after in pairwise(story.claims)]
    assert len(gaps) >= TICKS - 1
    assert min(gaps) > INTERVAL_SECONDS * (1 - JITTER) - CLOCK_SECONDS


def test_all_three_take_part(story: Story) -> None:
    """None is idle for long."""
    assert len(story.hosts) == REPLICAS
    assert {host for _, host in story.ticks} == story.hosts


def test_who_is_killed_is_started_again(story: Story) -> None:
    """By the engine, once, and it takes part again."""
    assert sorted(story.restarts) == [0, 0, 1]
    assert story.killed in {host for _, host in story.after_kill}
    assert problems(story.after_kill) == []


def test_it_can_write_nothing_but_its_data_and_gain_no_rights(story: Story) -> None:
    """The root file system is read-only; what is temporary goes to memory."""
    assert story.limits == NO_RIGHTS
    assert story.attempts == {
        "write where all may": False,
        "write to the code": False,
        "write to /tmp": True,
        "write to /data": True,
        "have what .env says": True,
    }


@pytest.mark.parametrize(
    ("variables", "published"), [({}, "8000"), ({"PORTS": "8000-8009"}, "8000-8009")]
)
def test_ports_of_this_machine_are_asked_for(
    service: Path, variables: dict[str, str], published: str
) -> None:
    """One that stays the same, or a range for several processes; no other machine gets there."""
    need_image(base_of(service))
    config = compose(service, "config", "--format", "json", **variables)
    app: dict[str, Any] = json.loads(config)["services"]["app"]
    [port] = app["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", published, 8000)
    assert app["environment"]["UVICORN_PORT"] == "8000"
    assert app["environment"]["UVICORN_HOST"] == "0.0.0.0"


@pytest.mark.parametrize(
    ("ticks", "problem"),
    [
        ([(1, "a"), (2, "b"), (3, "a")], []),
        ([(2, "b"), (1, "a"), (3, "a")], []),
        ([(1, "a"), (2, "a"), (2, "b"), (3, "a")], ["run 2 was made twice"]),
        ([(1, "a"), (2, "b"), (4, "a")], ["after run 2 comes run 4"]),
    ],
    ids=["good", "written in another order", "twice", "left out"],
)
def test_the_judge_sees_what_is_wrong(ticks: list[Tick], problem: list[str]) -> None:
    """Records known to be good, and known to be bad."""
    assert problems(ticks) == problem
