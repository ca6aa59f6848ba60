"""How `make test` comes by its .venv, told by commands that only pretend to be Python."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """Make a folder with what the Makefile needs."""
    directory = tmp_path / "template"
    directory.mkdir()
    shutil.copy(ROOT / "Makefile", directory)
    (directory / "requirements-dev.txt").touch()
    return directory


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Make a PATH without any Python."""
    directory = tmp_path / "path"
    directory.mkdir()
    for name in ("sh", "mkdir", "chmod", "touch", "rm"):
        (directory / name).symlink_to(str(shutil.which(name)))
    return directory


def write_python(path: Path, name: str, version: str) -> None:
    """Put a Python on the PATH that notes in the file `installs` when a .venv of it is filled."""
    answer = f"import sys; sys.version_info = {tuple(map(int, version.split('.')))}"
    (path / name).write_text(
        "#!/bin/sh\n"
        f"[ $1 = -c ] && exec {sys.executable} -c '{answer}; exec(sys.argv[1])' \"$2\"\n"
        f"mkdir -p .venv/bin\n"
        f"printf '#!/bin/sh\\n[ $1 = -m ] && echo {version} >>installs || true' >.venv/bin/python\n"
        "chmod +x .venv/bin/python\n"
    )
    (path / name).chmod(0o755)


def make_test(template: Path, path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `make test`."""
    return subprocess.run(
        [str(shutil.which("make")), "test", *arguments],
        cwd=template,
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
    )


def installs(template: Path) -> list[str]:
    """Return the versions of Python for which the lists were installed."""
    return (template / "installs").read_text().split()


def test_the_environment_is_made_once(template: Path, path: Path) -> None:
    """A second run installs nothing."""
    write_python(path, "python3", "3.12.1")
    make_test(template, path)
    make_test(template, path)
    assert installs(template) == ["3.12.1"]


def test_the_environment_is_made_again_for_another_python(template: Path, path: Path) -> None:
    """Whoever asks for another version is not given the old one."""
    write_python(path, "python3", "3.12.1")
    write_python(path, "python3.13", "3.13.0")
    make_test(template, path)
    make_test(template, path, "PYTHON=python3.13")
    assert installs(template) == ["3.12.1", "3.13.0"]


@pytest.mark.parametrize(
    ("version", "supported"),
    [("3.10.9", False), ("3.11.0", True), ("3.14.9", True), ("3.15.0", False)],
)
def test_only_a_supported_python_is_taken(
    template: Path, path: Path, version: str, supported: bool
) -> None:
    """A version that the locked lists were not made for is like none."""
    write_python(path, "python3", version)
    assert (make_test(template, path).returncode == 0) == supported


def test_a_python_that_runs_nothing_is_passed_over(template: Path, path: Path) -> None:
    """Version managers put commands on the PATH that only fail."""
    (path / "python3").write_text("#!/bin/sh\nexit 127\n")
    (path / "python3").chmod(0o755)
    write_python(path, "python3.11", "3.11.7")
    make_test(template, path)
    assert installs(template) == ["3.11.7"]


def test_no_python_is_said_in_one_line(template: Path, path: Path) -> None:
    """The line says which versions would do."""
    answer = make_test(template, path)
    assert answer.returncode == 2
    (line,) = answer.stderr.splitlines()
    assert "No Python 3.11 to 3.14 with venv runs here" in line
