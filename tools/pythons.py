"""Finds the CPython versions of this machine, wherever its user keeps them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SUPPORTED = ("3.11", "3.12", "3.13", "3.14")

NOT_YET_IN_CI = "3.14"
"""The one that our own CI cannot have."""

PROBE = (
    "import sys, ensurepip\n"  # without ensurepip, as in a bare Debian, there is no usable venv
    "if sys.implementation.name == 'cpython': print('%d.%d' % sys.version_info[:2])"
)


def find(version: str) -> Path | None:
    """Return an interpreter of that version, such as "3.12", that can make venvs; or None."""
    for candidate in candidates(version):
        if runs_as(candidate) == version:
            return candidate
    return None


def candidates(version: str) -> Iterator[Path]:
    """Yield where such an interpreter may be, likeliest first; some will not run."""
    yield Path(sys.executable)
    name = f"python{version}"
    for directory in os.get_exec_path():
        # Each directory by itself: the first match on PATH may be a pyenv shim that runs nothing.
        if found := shutil.which(name, path=directory or os.curdir):
            yield Path(found)
    installations = [Path(sys.base_prefix).parent]
    if root := pyenv_root():
        installations.append(root / "versions")
    for installation in installations:
        yield from sorted(installation.glob(f"*/bin/{name}"))


def pyenv_root() -> Path | None:
    """Return the folder in which pyenv keeps its versions, if there is a pyenv."""
    try:
        answer = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return Path(answer.stdout.strip())


def runs_as(interpreter: Path) -> str:
    """Return the version that the interpreter answers with, or nothing."""
    try:
        answer = subprocess.run(
            [interpreter, "-I", "-c", PROBE], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()
