"""The CI of the generated project: each `run:` step of its workflow, in order, from the bake alone.

Where there is an engine, the checks run in a clean container, as a user without rights, and what
is about the image runs on the engine itself. Where there is none, the checks run on this machine.
What the `uses:` steps say is for the linters.
"""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.engine import Container, base_of, docker, is_there, need_image, unique
from tests.machine import lacking
from tests.readme import TABLE_MIGRATION, asking_job, first_job, write
from tools import pythons
from tools.bake import TEMPLATE, bake
from tools.postgres import free_port

CONTAINER, MACHINE = "in a clean container", "on this machine"

WAYS = (CONTAINER,) if is_there() else (MACHINE, CONTAINER)

# In a container only what is below HOME can be written.
RUNNER = "1001:1001"
HOME, SOURCE = "/home/runner", "/home/runner/work"

USUAL = json.loads((TEMPLATE / "cookiecutter.json").read_text("utf-8"))["python_version"][0]
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
VERSIONS = [version for version in pythons.SUPPORTED if version == USUAL or version != RUNNING]

ELSEWHERE = "-k 'not postgres and not simulation and not processes'"

Step = Callable[[str], str]
"""Runs a step, which must succeed, and returns its output."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bake the default service. Its name is new, as its image will be tagged by it."""
    return bake(tmp_path_factory.mktemp("workflow"), project_slug=unique("workflow-test"))


def jobs(service: Path) -> dict[str, Any]:
    """Return the jobs of the workflow by their identifiers."""
    text = (service / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    found: dict[str, Any] = yaml.safe_load(text)["jobs"]
    return found


def steps(service: Path, job: str) -> list[str]:
    """Return what the `run:` steps of a job say."""
    return [step["run"] for step in jobs(service)[job]["steps"] if "run" in step]


@contextmanager
def checkout(
    service: Path, version: str, way: str, folder: Path, options: str = ""
) -> Iterator[Step]:
    """Give a copy of the service where its steps run on that Python, pytest with these options."""
    if way == MACHINE:
        yield on_this_machine(service, version, folder / "work", options)
        return
    image = f"python:{version}"
    need_image(image)
    with Container.started(
        *("--user", RUNNER, "--env", f"HOME={HOME}", "--env", "CI=true"),
        *("--env", f"PYTEST_ADDOPTS={options}"),
        *("--tmpfs", f"{HOME}:exec,mode=1777", image, "sleep", "infinity"),
    ) as container:
        # As GitHub's runner, the user has a name: Postgres works for nobody without one.
        passwd = f"echo 'runner:x:{RUNNER}::{HOME}:/bin/bash' >> /etc/passwd"
        docker("exec", "--user", "0", container.name, "sh", "-c", passwd)
        yield in_container(container, service)


def in_container(container: Container, service: Path) -> Step:
    """Copy the service there, and run each step as GitHub does: until its first error."""
    files = io.BytesIO()
    with tarfile.open(fileobj=files, mode="w") as archive:
        archive.add(service, ".")
    container.run("mkdir", SOURCE)
    unpack = ("tar", "--extract", "--no-same-owner", "--directory", SOURCE)
    docker("exec", "--interactive", container.name, *unpack, data=files.getvalue())
    return lambda step: container.run("bash", "-e", "-c", f"cd {SOURCE}\n{step}")


def on_this_machine(service: Path, version: str, work: Path, options: str) -> Step:
    """Copy the service to `work`; its Makefile is told which Python to take."""
    interpreter = pythons.find(version)
    if interpreter is None:
        what = f"Python {version} is not on this machine, the generated suite is untested with it"
        lacking(what, in_ci_too=version == pythons.NOT_YET_IN_CI)
    shutil.copytree(service, work)
    return lambda step: run(step, work, PYTHON=str(interpreter), PYTEST_ADDOPTS=options)


def run(step: str, folder: Path, **environment: str) -> str:
    """Run a step outside of this test run, and of the make that may have started it."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MAKE", "PYTEST_", "PYTHON")) and name != "VIRTUAL_ENV"
    }
    done = subprocess.run(
        ["bash", "-e", "-c", step],
        cwd=folder,
        env={**kept, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{step}\n{done.stdout}"
    return done.stdout


def test_each_step_is_run_here(service: Path) -> None:
    """A job that is added to the workflow needs a test here."""
    assert {name: steps(service, name) for name in jobs(service)} == {
        "check": ["make lint", "make types"],
        "test": ["make test"],
        "check-image": ["make check-image"],
    }


@pytest.mark.parametrize("way", WAYS)
def test_lint_and_types_are_clean(service: Path, way: str, tmp_path: Path) -> None:
    """On the Python of .python-version."""
    with checkout(service, USUAL, way, tmp_path) as step:
        for command in steps(service, "check"):
            step(command)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("version", VERSIONS)
def test_its_tests_are_green(service: Path, version: str, way: str, tmp_path: Path) -> None:
    """All of them, without a warning, with what the hashed list installs.

    But for the one that starts the service as another user: only root can. On the Python of
    .python-version they are those of a service that has grown: its user has added a job, a table
    and a migration. To save time, other Pythons do without Postgres, the simulation and processes
    of their own. That of this run is left out: `make test` runs them all in place.
    """
    options = "" if version == USUAL else ELSEWHERE
    tested = grown(service, tmp_path / "grown") if version == USUAL else service
    with checkout(tested, version, way, tmp_path, options) as step:
        output = "".join(step(command) for command in steps(service, "test"))
    assert re.search(r"=+ \d+ passed(, 1 skipped)? in \S+ .*=+\n$", output), output


def grown(service: Path, folder: Path) -> Path:
    """Copy the service, and let it have the README's first job, and a table with its migration."""
    shutil.copytree(service, folder)
    table, *_ = asking_job(folder)
    write([*first_job(folder), table], folder)
    (folder / "app" / "migrations" / "versions" / "a7ab1e_rates.py").write_text(TABLE_MIGRATION)
    return folder


@contextmanager
def new_image_of(service: Path) -> Iterator[None]:
    """Let an image of that service be made; no container of it may be left. It is removed."""
    need_image(base_of(service))
    yield
    assert docker("ps", "--all", "--quiet", "--filter", f"ancestor={service.name}") == ""
    docker("image", "rm", "--force", service.name)


def test_the_image_is_built_run_probed_and_stopped(service: Path) -> None:
    """The answer and the exit code are shown, and nothing is left."""
    with new_image_of(service):
        for command in steps(service, "check-image"):
            output = run(command, service, PORT=str(free_port()))
    assert '{"status":"ok","database":"ok"}\n' in output
    assert "exit code 0\n" in output


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ('["sh", "-c", "python -m app; exit 0"]', "exit code 137\n"),
        ('["sh", "-c", "echo no service; sleep 100"]', "no service\n"),
    ],
    ids=["the signal does not arrive", "does not answer"],
)
def test_an_image_that_does_not_work_fails(tmp_path: Path, command: str, problem: str) -> None:
    """The step shows its log, and leaves nothing."""
    bad = bake(tmp_path, project_slug=unique("workflow-test"))
    dockerfile = bad / "Dockerfile"
    good, _, _ = dockerfile.read_text("utf-8").rpartition("CMD ")
    dockerfile.write_text(f"{good}CMD {command}\n")
    makefile = bad / "Makefile"
    makefile.write_text(makefile.read_text("utf-8").replace("--retry 30", "--retry 3"))
    with new_image_of(bad), pytest.raises(AssertionError, match=problem):
        run("make check-image", bad, PORT=str(free_port()))
