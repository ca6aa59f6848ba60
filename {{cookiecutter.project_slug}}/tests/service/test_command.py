"""`python -m app`: what it tells uvicorn. Real servers are in `test_processes.py`."""

import os
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from app.__main__ import main


def told(*options: str, **environment: str) -> tuple[list[str], str | None]:
    """The options that uvicorn gets, and the port that it will find in the environment."""
    told: list[tuple[list[str], str | None]] = []

    def serve(arguments: list[str]) -> None:
        told.append((arguments, os.environ.get("UVICORN_PORT")))

    with (
        patch.dict(os.environ, environment),
        patch.object(sys, "argv", ["app", *options]),
        patch("uvicorn.main", serve),
    ):
        main()
    [only] = told
    return only


def test_uvicorns_options_are_passed_on() -> None:
    """After the app, and the two seconds that clients have at the end."""
    options, _ = told("--workers", "4")
    app = ["app.main:create_app", "--factory", "--timeout-graceful-shutdown=2"]
    assert options == [*app, "--workers", "4"]


@pytest.mark.parametrize(
    ("environment", "file", "port"),
    [
        ({}, "", None),
        ({"PORT": "8001"}, "", "8001"),
        ({"UVICORN_PORT": "8001"}, "", "8001"),
        ({"PORT": "8001", "UVICORN_PORT": "8002"}, "", "8002"),
        ({"PORT": "8001", "UVICORN_PORT": ""}, "", "8001"),
        ({}, "PORT=8003", "8003"),
        ({}, "UVICORN_PORT=8003", "8003"),
        ({"PORT": "8001"}, "UVICORN_PORT=8003", "8001"),
        ({"UVICORN_PORT": "8001"}, "PORT=8003", "8001"),
    ],
)
def test_the_port_is_told(
    tmp_path: Path, environment: dict[str, str], file: str, port: str | None
) -> None:
    """As platforms say it, or as uvicorn does. `.env` says only what the environment does not."""
    (tmp_path / ".env").write_text(file)
    assert told(**environment)[1] == port


def test_a_file_that_cannot_be_read_is_left_to_the_app(tmp_path: Path) -> None:
    """Which ends the start with a line about it."""
    (tmp_path / ".env").write_bytes(b"\xff")
    assert told(PORT="8001")[1] == "8001"
