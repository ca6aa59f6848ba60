"""A Docker engine, spoken to by its command, and containers that end with their tests."""

import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from tests.machine import lacking
from tests.server import wait_until
from tools.pythons import NOT_YET_IN_CI

NO_RIGHTS = {"CapBnd": "0" * 16, "NoNewPrivs": "1"}
"""The limits of a container that can gain none, whoever it runs as."""

# For Compose: the engine may have no network, and the ports of this machine are not the tests'.
COMPOSE_OVERRIDE = """
services:
  app:
    network_mode: none
    ports: !reset []
"""

# In the container, so that no port of this machine is needed. Not by 127.0.0.1: who listens there
# alone cannot be reached from outside.
ASK = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.2", 8000, timeout=30)
connection.request(*sys.argv[1:], headers={"Content-Type": "application/json"})
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"""


POSTGRES = "postgres:18"

# What compose.yaml asks for is for the tests to say.
COMPOSE_VARIABLES = {"COMPOSE_PROFILES", "DATABASE_URL", "PORTS"}


@functools.cache
def is_there() -> bool:
    """Say whether there is an engine."""
    try:
        return subprocess.run(["docker", "version"], capture_output=True).returncode == 0
    except OSError:
        return False


def unique(name: str) -> str:
    """Return a name that no other test run on the same engine gives to its images."""
    return f"{name}-{uuid4().hex[:8]}"


def need_image(name: str) -> None:
    """Have an engine, and that image of a Python. Where it lacks, CI fails, other machines skip."""
    if not is_there():
        lacking("there is no Docker engine here: image, Compose and workflow are untested")
    if not _has_image(name):
        lacking(
            f"the image {name} cannot be had here: what is built on it, or runs in it, is untested",
            in_ci_too=f":{NOT_YET_IN_CI}" in name,
        )


def need_postgres_image(base: str) -> None:
    """Have an engine, and the image of Postgres. CI, which cannot, makes a stand-in on `base`."""
    if os.environ.get("CI") and is_there() and not _has_image(POSTGRES):
        need_image(base)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(
            [Path("tools/docker/make-postgres"), base, POSTGRES],
            env={**os.environ, "PATH": path},
            check=True,
        )
        _has_image.cache_clear()
    need_image(POSTGRES)


@functools.cache
def _has_image(name: str) -> bool:
    return any(
        subprocess.run(["docker", *command, name], capture_output=True).returncode == 0
        for command in (["image", "inspect"], ["pull", "--quiet"])
    )


def base_of(service: Path) -> str:
    """Return the image that its Dockerfile begins with."""
    [name] = re.findall(r"^FROM (\S+) AS base$", (service / "Dockerfile").read_text(), re.M)
    return str(name)


@contextmanager
def image_of(service: Path) -> Iterator[str]:
    """Give the name of the image that `make image` builds of the service. It goes at the end."""
    need_image(base_of(service))
    done = subprocess.run(["make", "image"], cwd=service, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        yield service.name
    finally:
        docker("image", "rm", "--force", service.name)


def docker(*arguments: str, data: bytes | None = None) -> str:
    """Run a command of Docker's with `data` as its input; it must succeed. Return its output."""
    done = subprocess.run(["docker", *arguments], input=data, capture_output=True)
    words = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, f"docker {' '.join(arguments)}\n{words}"
    return done.stdout.decode()


class Container:
    """A container. It goes at the end of a `with` block."""

    def __init__(self, name: str) -> None:
        """Take one that is there."""
        self.name = name

    @classmethod
    def started(cls, *arguments: str) -> Self:
        """Start one by `docker run` with these arguments."""
        return cls(docker("run", "--detach", *arguments).strip())

    def __enter__(self) -> Self:
        """Hold it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove it, and tell what it has said if something went wrong."""
        if error is not None:
            error.add_note(f"the container's log:\n{self.log}")
        docker("rm", "--force", "--volumes", self.name)

    @property
    def log(self) -> str:
        """All that it has written, on both streams, in its order."""
        command = ["docker", "logs", self.name]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.stdout.decode()

    def inspect(self, field: str) -> Any:
        """Return a field of what the engine knows of it, such as `State.Pid`."""
        return json.loads(docker("inspect", "--format", f"{{{{json .{field}}}}}", self.name))

    def run(self, *command: str) -> str:
        """Run a command in it, which must succeed. Return its output."""
        return docker("exec", self.name, *command)

    def limits(self) -> dict[str, str]:
        """Return what its first process may gain: capabilities, and by programs that give more."""
        status = dict(re.findall(r"(\w+):\s*(\S+)", self.run("cat", "/proc/1/status")))
        return {name: status[name] for name in ("CapBnd", "NoNewPrivs")}

    def succeeds(self, *command: str) -> bool:
        """Say whether a command in it does."""
        done = subprocess.run(["docker", "exec", self.name, *command], capture_output=True)
        return done.returncode == 0

    def wait_until_healthy(self) -> float:
        """Wait for it, and return for how many seconds."""

        def is_healthy() -> bool:
            state = self.inspect("State")
            assert state["Running"], "it has ended"
            return bool(state["Health"]["Status"] == "healthy")

        return wait_until(is_healthy, "it is healthy")

    def ask(self, method: str, path: str, *body: str) -> tuple[int, Any]:
        """Send a request to the service. Return the code of the answer, and what it holds."""
        status, _, text = self.run("python", "-c", ASK, method, path, *body).partition(" ")
        return int(status), json.loads(text or "null")

    def history(self, job: str) -> list[dict[str, Any]]:
        """Return the runs of a job, the first one first."""
        runs: list[dict[str, Any]] = json.loads(
            self.run("python", "-m", "app.cron", "history", job, "--json")
        )
        return runs


def compose(service: Path, *arguments: str, **variables: str) -> str:
    """Run a command of Compose's, which must succeed. Return its output."""
    done = subprocess.run(
        ["docker", "compose", *arguments],
        cwd=service,
        env={**compose_environment(), **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"compose {' '.join(arguments)}\n{done.stderr}"
    return done.stdout


@functools.cache
def compose_environment() -> dict[str, str]:
    """Return the environment in which `docker compose` is there, by a package if need be."""
    environment = {name: os.environ[name] for name in os.environ if name not in COMPOSE_VARIABLES}
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        folder = Path(sys.prefix, "docker")  # where Docker is told to look for plugins
        plugin = folder / "cli-plugins" / "docker-compose"
        plugin.parent.mkdir(parents=True, exist_ok=True)
        plugin.unlink(missing_ok=True)
        plugin.symlink_to(Path(sys.prefix, "bin", "docker-compose"))
        environment["DOCKER_CONFIG"] = str(folder)
    return environment
