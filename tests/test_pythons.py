"""The finder of Python interpreters."""

import os
import sys
from pathlib import Path

import pytest

from tools import pythons

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
OTHER = "3.9"


def write_program(path: Path, text: str) -> Path:
    """Write an executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a machine with an empty PATH and no other installation; returns its one PATH folder."""
    directory = tmp_path / "path"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "installations" / "running"))
    return directory


@pytest.mark.usefixtures("bare_machine")
def test_it_finds_the_interpreter_that_runs_it() -> None:
    """The running version needs neither PATH nor pyenv."""
    assert pythons.find(RUNNING) == Path(sys.executable)


@pytest.mark.usefixtures("bare_machine")
def test_it_finds_nothing_on_a_machine_without_that_version() -> None:
    """A version that is nowhere is None, not an error."""
    assert pythons.find(OTHER) is None


def test_it_finds_an_interpreter_on_path(bare_machine: Path) -> None:
    """PATH is searched by the name pythonX.Y."""
    program = write_program(bare_machine / f"python{OTHER}", f"echo {OTHER}")
    assert pythons.find(OTHER) == program


def test_it_looks_past_a_shim_that_runs_nothing(
    bare_machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pyenv shim of a version that is not selected exits 127; a real one may come later."""
    write_program(bare_machine / f"python{OTHER}", "exit 127")
    program = write_program(tmp_path / "later" / f"python{OTHER}", f"echo {OTHER}")
    monkeypatch.setenv("PATH", f"{bare_machine}{os.pathsep}{program.parent}")
    assert pythons.find(OTHER) == program


def test_it_finds_the_versions_of_pyenv(bare_machine: Path, tmp_path: Path) -> None:
    """What pyenv has installed is found although pyenv has not selected it."""
    write_program(bare_machine / "pyenv", f'[ "$1" = root ] && echo "{tmp_path}/pyenv"')
    program = write_program(
        tmp_path / "pyenv" / "versions" / f"{OTHER}.4" / "bin" / f"python{OTHER}", f"echo {OTHER}"
    )
    assert pythons.find(OTHER) == program


@pytest.mark.usefixtures("bare_machine")
def test_it_finds_the_neighbours_of_the_running_installation(tmp_path: Path) -> None:
    """Version managers keep installations side by side, so the running one shows where."""
    program = write_program(
        tmp_path / "installations" / "other" / "bin" / f"python{OTHER}", f"echo {OTHER}"
    )
    assert pythons.find(OTHER) == program


def test_it_does_not_believe_the_name(bare_machine: Path) -> None:
    """An interpreter counts as the version that it says it is."""
    write_program(bare_machine / f"python{OTHER}", "echo 3.8")
    assert pythons.find(OTHER) is None
