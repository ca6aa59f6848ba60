"""The service beside Postgres, started as compose.yaml says with its profile.

All that is to be seen happens once, in `story`; each test looks at one thing.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.engine import (
    Container,
    base_of,
    compose,
    image_of,
    need_image,
    need_postgres_image,
    unique,
)
from tests.server import wait_until
from tools.bake import bake

# The engine may have no network: the service sees Postgres on the loopback that both share.
OVERRIDE = """
services:
  app:
    network_mode: service:postgres
    ports: !reset []
  postgres:
    network_mode: none
    extra_hosts: ["postgres:127.0.0.1"]
"""

URL = "postgresql://postgres:postgres@postgres/postgres"

PROFILE = {"COMPOSE_PROFILES": "postgres"}

SESSION = '{"user": "ana", "ttl_seconds": 600}'


@dataclass
class Story:
    """What was seen."""

    first_line: str
    tables: set[str]
    made: tuple[int, Any]
    found: tuple[int, Any]
    runs: list[dict[str, Any]]
    codes: list[int]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bake a service."""
    service = bake(tmp_path_factory.mktemp("compose"), project_slug=unique("compose-postgres"))
    (service / "override.yaml").write_text(OVERRIDE)
    return service


@pytest.fixture(scope="module")
def story(service: Path) -> Iterator[Story]:
    """See it all."""
    need_postgres_image(base_of(service))
    run = partial(
        compose, service, COMPOSE_FILE=f"compose.yaml{os.pathsep}override.yaml", **PROFILE
    )
    with image_of(service):
        try:
            yield live(run)
        finally:
            run("down", "--volumes", "--remove-orphans")


def live(run: Callable[..., str]) -> Story:
    """Use them, take them away but for the volumes, start them anew."""
    app, postgres = start(run)
    made = app.ask("POST", "/sessions", SESSION)
    wait_until(lambda: len(app.history("expire_sessions")) > 0, "a job has run")
    runs, first_line = app.history("expire_sessions"), re.findall("cron: .*", app.log)[0]
    tables = postgres.run("psql", "-Atc", "\\dt", URL.replace("@postgres/", "@127.0.0.1/"))
    run("stop")
    codes = [each.inspect("State.ExitCode") for each in (app, postgres)]
    run("down")
    app, _ = start(run)
    return Story(
        first_line=first_line,
        tables={line.split("|")[1] for line in tables.splitlines()},
        made=made,
        found=app.ask("GET", f"/sessions/{made[1]['id']}"),
        runs=runs,
        codes=codes,
    )


def start(run: Callable[..., str]) -> list[Container]:
    """Start the service and Postgres, and wait until both are healthy."""
    run("up", "--detach", "--no-build", "--wait")
    return [Container(run("ps", "--quiet", name).strip()) for name in ("app", "postgres")]


def test_the_profile_alone_makes_it_use_postgres(story: Story) -> None:
    """Its first line says so, and the tables are there."""
    assert "Postgres postgres/postgres, lease 30 s" in story.first_line
    assert {"sessions", "cron_job"} <= story.tables


def test_jobs_and_endpoints_use_it(story: Story) -> None:
    """A session is made, and a job has run."""
    assert story.made[0] == 201
    assert story.runs[0]["outcome"] == "ok"


def test_what_is_kept_is_in_the_volume(story: Story) -> None:
    """Other containers find it there."""
    assert story.found == (200, story.made[1])


def test_both_end_in_order(story: Story) -> None:
    """Each with code 0."""
    assert story.codes == [0, 0]


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, ""),
        (PROFILE, URL),
        ({"DATABASE_URL": "postgresql://else/where"}, "postgresql://else/where"),
        (PROFILE | {"DATABASE_URL": "postgresql://else/where"}, "postgresql://else/where"),
    ],
    ids=["neither", "profile", "URL", "both"],
)
def test_a_url_of_ones_own_goes_before_the_profile(
    service: Path, variables: dict[str, str], url: str
) -> None:
    """And without either, it is empty: the default, a file in the volume."""
    need_image(base_of(service))
    config = compose(service, "config", "--format", "json", **variables)
    app = json.loads(config)["services"]["app"]
    assert app["environment"]["DATABASE_URL"] == url
