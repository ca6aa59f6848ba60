"""How a service's Makefile comes by .venv, told by commands that only pretend to be Python."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tools.bake import TEMPLATE

SERVICE = TEMPLATE / "{{cookiecutter.project_slug}}"

# Fits when asked whether it does; makes a .venv whose python notes what it is asked to install.
FITTING = """#!/bin/sh
case "$1" in
-c) exit 0 ;;
-m) rm -rf .venv && mkdir -p .venv/bin &&
    printf '#!/bin/sh\\necho "%s $*" >>installs\\n' "$0" >.venv/bin/python &&
    chmod +x .venv/bin/python ;;
esac
"""
FAILING = "#!/bin/sh\necho 'no such version' >&2\nexit 127\n"


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """Make a folder with what the Makefile needs."""
    directory = tmp_path / "service"
    directory.mkdir()
    for name in ("Makefile", "requirements-dev.txt"):
        shutil.copy(SERVICE / name, directory)
    return directory


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Make a PATH without any Python."""
    directory = tmp_path / "path"
    directory.mkdir()
    for name in ("sh", "rm", "mkdir", "chmod", "touch"):
        (directory / name).symlink_to(str(shutil.which(name)))
    return directory


def write_command(path: Path, name: str, text: str) -> Path:
    """Put a command on the PATH."""
    command = path / name
    command.write_text(text)
    command.chmod(0o755)
    return command


def install(service: Path, path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Let make bring .venv up to date."""
    return subprocess.run(
        [str(shutil.which("make")), *arguments, ".venv/installed"],
        cwd=service,
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
    )


def installs(service: Path) -> list[str]:
    """Return what was installed: the Python that made .venv, and what pip was asked for."""
    return (service / "installs").read_text().splitlines()


def test_the_first_python_that_runs_is_taken(service: Path, path: Path) -> None:
    """A version manager's command that only fails is passed over."""
    write_command(path, "python3", FAILING)
    write_command(path, "python3.14", FAILING)
    python = write_command(path, "python3.13", FITTING)
    write_command(path, "python3.12", FITTING)
    assert install(service, path).returncode == 0
    assert [line.split()[0] for line in installs(service)] == [str(python)]


def test_a_named_python_is_tried_first(service: Path, path: Path, tmp_path: Path) -> None:
    """`make PYTHON=...` chooses the interpreter."""
    write_command(path, "python3", FITTING)
    python = write_command(tmp_path, "mine", FITTING)
    assert install(service, path, f"PYTHON={python}").returncode == 0
    assert [line.split()[0] for line in installs(service)] == [str(python)]


def test_the_python_of_an_older_venv_is_kept(service: Path, path: Path, tmp_path: Path) -> None:
    """When it is made anew, as after a change of the requirements."""
    write_command(path, "python3", FITTING)
    (tmp_path / "an old one (3)").mkdir()
    python = write_command(tmp_path / "an old one (3)", "mine", FITTING)
    (service / ".venv" / "bin").mkdir(parents=True)
    (service / ".venv" / "bin" / "python").symlink_to(python)
    assert install(service, path).returncode == 0
    [line] = installs(service)
    assert line.startswith(f"{python} -m pip install")


def test_a_venv_is_not_made_by_itself(service: Path, path: Path) -> None:
    """Where its Python is a copy of that which made it: it would delete what it runs on."""
    python = write_command(path, "python3", FITTING)
    (service / ".venv" / "bin").mkdir(parents=True)
    write_command(service / ".venv" / "bin", "python", FITTING)
    assert install(service, path).returncode == 0
    assert [line.split()[0] for line in installs(service)] == [str(python)]


def test_only_locked_requirements_are_installed(service: Path, path: Path) -> None:
    """Pip checks the hash of everything it installs."""
    write_command(path, "python3", FITTING)
    install(service, path)
    assert installs(service)[0].endswith("--require-hashes -r requirements-dev.txt")


def test_installing_happens_once(service: Path, path: Path) -> None:
    """A second command finds .venv as it should be."""
    write_command(path, "python3", FITTING)
    install(service, path)
    install(service, path)
    assert len(installs(service)) == 1


def test_without_a_python_one_line_says_what_is_needed(service: Path, path: Path) -> None:
    """Make adds only its own line that the target failed."""
    write_command(path, "python3", FAILING)
    process = install(service, path)
    ours, makes = process.stderr.splitlines()
    assert process.returncode != 0
    assert ours.startswith("No Python 3.11 to 3.14 with venv runs here")
    assert makes.startswith("make:")


def test_run_makes_a_file_for_this_machines_settings_once(service: Path) -> None:
    """`.env` is a copy of the example; what its user writes into it stays."""
    (service / ".env.example").write_text("# LOG_LEVEL=INFO\n")
    (service / ".venv" / "bin").mkdir(parents=True)
    write_command(service / ".venv" / "bin", "python", "#!/bin/sh\n")
    (service / ".venv" / "installed").touch()
    make = ["make", "--old-file", ".venv/installed", "run"]
    subprocess.run(make, cwd=service, check=True, capture_output=True)
    assert (service / ".env").read_text() == "# LOG_LEVEL=INFO\n"
    (service / ".env").write_text("LOG_LEVEL=DEBUG\n")
    (service / ".env.example").write_text("# newer\n")
    subprocess.run(make, cwd=service, check=True, capture_output=True)
    assert (service / ".env").read_text() == "LOG_LEVEL=DEBUG\n"
