"""The generated service passes its own checks on every CPython that it supports."""

import os
import subprocess
from pathlib import Path

import pytest

from tools import pythons
from tools.bake import bake

NOT_YET_IN_CI = "3.14"
TYPE_CHECKED_ON = pythons.SUPPORTED[0]  # one is enough, and the oldest knows the fewest names


def interpreter(version: str) -> Path:
    """Return the interpreter of that version; without it CI fails, other machines skip."""
    if found := pythons.find(version):
        return found
    reason = f"Python {version} is not on this machine, the generated suite is untested with it"
    if os.environ.get("CI") and version != NOT_YET_IN_CI:
        pytest.fail(reason)
    pytest.skip(reason)


def run(directory: Path, *command: str | Path) -> str:
    """Run a command as a user would, outside of this test run; it must succeed."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "PYTHON")) and name != "VIRTUAL_ENV"
    }
    finished = subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output = finished.stdout
    assert finished.returncode == 0, f"{' '.join(map(str, command))}\n{output}"
    return output


@pytest.mark.parametrize(
    ("environment", "version", "outcome"),
    [
        ({}, "3.12", pytest.skip.Exception),
        ({"CI": "true"}, "3.12", pytest.fail.Exception),
        ({"CI": "true"}, NOT_YET_IN_CI, pytest.skip.Exception),
    ],
    ids=["elsewhere", "in CI", "not yet in CI"],
)
def test_a_missing_python_is_said_aloud(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    version: str,
    outcome: type[BaseException],
) -> None:
    """What was not tried is named, and CI must try all that it can have."""
    monkeypatch.setattr(pythons, "find", lambda _: None)
    monkeypatch.delenv("CI", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(outcome, match=f"Python {version} is not on this machine"):
        interpreter(version)


@pytest.mark.parametrize("version", pythons.SUPPORTED)
def test_the_generated_service_passes_its_own_checks(version: str, tmp_path: Path) -> None:
    """Installed from its own hashed list, the fresh service is clean, typed and green."""
    found = interpreter(version)
    service = bake(tmp_path)
    run(tmp_path, found, "-m", "venv", "venv")
    python = tmp_path / "venv" / "bin" / "python"
    lists = ("--require-hashes", "-r", "requirements-dev.txt")
    run(service, python, "-m", "pip", "install", "--quiet", *lists)
    run(service, python, "-m", "ruff", "check")
    run(service, python, "-m", "ruff", "format", "--check")
    if version == TYPE_CHECKED_ON:
        run(service, python, "-m", "mypy")
    assert " warning" not in run(service, python, "-m", "pytest", "-q")
