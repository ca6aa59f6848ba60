"""The image of the generated service, on each Python: built, started without rights, stopped.

All that is to be seen of one image happens once, in `story`; each test looks at one thing.
"""

import io
import json
import re
import subprocess
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.engine import NO_RIGHTS, Container, base_of, docker, image_of, unique
from tests.server import wait_until
from tools.bake import bake
from tools.pythons import SUPPORTED

HEALTHY_SECONDS_MAX = 10
STOP_SECONDS_MAX = 10

# What clients have to end their requests, and then the jobs until they are cancelled.
DRAIN_SECONDS, GRACE_SECONDS = 2, 5

MEGABYTES_MAX = 70
"""More than the base image has: the dependencies, most of all."""

SECRET = "swordfish-3f61"

# It needs nothing of the machine but the volume that the image declares.
RIGHTS = (
    *("--read-only", "--tmpfs", "/tmp"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--network", "none"),
)

JOB = '''"""A job that is always at work."""

from datetime import timedelta

from app.cron import JobContext, every, job


@job(every(hours=1, jitter=0))
async def endless(ctx: JobContext) -> None:
    """Go on until it is cancelled."""
    print("endless has begun")
    await ctx.clock.sleep(timedelta(days=1).total_seconds())
'''

JOBS = '''"""Your jobs."""

from .endless import endless

JOBS = [endless]
'''

# Has begun a request and does not end it.
SLOW_CLIENT = """
import pathlib, socket, time
connection = socket.create_connection(("127.0.0.1", 8000))
connection.sendall(b"POST /sessions HTTP/1.1\\r\\nHost: service\\r\\nContent-Length: 9\\r\\n\\r\\n")
pathlib.Path("/tmp/connected").touch()
time.sleep(600)
"""

COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "ld", "as", "make", "cargo", "rustc", "go")

FIND = "import json, shutil, sys; print(json.dumps([n for n in sys.argv[1:] if shutil.which(n)]))"


@dataclass
class Story:
    """What was seen."""

    service: Path
    files: dict[str, tarfile.TarInfo]
    with_secrets: list[str]
    compilers: list[str]
    megabytes: float
    healthy_seconds: float
    user: str
    limits: dict[str, str]
    log: str
    stop_seconds: float
    exit_code: int
    session: tuple[int, Any]
    runs: list[dict[str, Any]]


@pytest.fixture(scope="module", params=SUPPORTED)
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Build, start, stop in the middle of a run, start again."""
    answers = {"project_slug": unique("image-test"), "python_version": request.param}
    service = bake(tmp_path_factory.mktemp("image"), **answers)
    litter(service)
    with image_of(service) as image, Container.started(*RIGHTS, image) as container:
        return live(container, service, image)


def litter(service: Path) -> None:
    """Add a job, and what a developer's folder holds besides: secrets, a database, caches."""
    (service / "app" / "jobs" / "endless.py").write_text(JOB)
    (service / "app" / "jobs" / "__init__.py").write_text(JOBS)
    for name in (".env", "data/app.db", ".venv/secret", "app/jobs/__pycache__/old.pyc", "id_rsa"):
        (service / name).parent.mkdir(parents=True, exist_ok=True)
        (service / name).write_text(SECRET)
    for path in (service / "app").rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)  # as with a umask of 077


def live(container: Container, service: Path, image: str) -> Story:
    """Be the image's first user."""
    healthy_seconds = container.wait_until_healthy()
    wait_until(lambda: bool(container.history("endless")), "the job has begun")
    log = container.log  # before a request makes the server write
    user = container.run("id")
    new = json.dumps({"user": "ada", "ttl_seconds": 3600})
    _, created = container.ask("POST", "/sessions", new)
    docker("exec", "--detach", container.name, "python", "-c", SLOW_CLIENT)
    wait_until(lambda: "connected" in container.run("ls", "/tmp"), "a slow client")
    began = time.monotonic()
    docker("stop", container.name)
    stop_seconds = time.monotonic() - began
    exit_code = container.inspect("State.ExitCode")
    docker("start", container.name)
    container.wait_until_healthy()
    wait_until(lambda: len(container.history("endless")) > 1, "the job has begun again")
    files, with_secrets = added_by(image, base_of(service))
    return Story(
        service=service,
        files=files,
        with_secrets=with_secrets,
        compilers=json.loads(container.run("python", "-c", FIND, *COMPILERS)),
        megabytes=(size_of(image) - size_of(base_of(service))) / 1e6,
        healthy_seconds=healthy_seconds,
        user=user,
        limits=container.limits(),
        log=log,
        stop_seconds=stop_seconds,
        exit_code=exit_code,
        session=container.ask("GET", f"/sessions/{created['id']}"),
        runs=container.history("endless"),
    )


def size_of(image: str) -> int:
    """Return its bytes."""
    return int(docker("image", "inspect", "--format", "{{.Size}}", image))


def layers_of(image: str) -> list[str]:
    """Return the digests of its layers."""
    layers: list[str] = json.loads(
        docker("image", "inspect", "--format", "{{json .RootFS.Layers}}", image)
    )
    return layers


def added_by(image: str, base: str) -> tuple[dict[str, tarfile.TarInfo], list[str]]:
    """Return the entries of the layers above the base, also what a later one hides.

    And the names of those that hold a secret.
    """
    files: dict[str, tarfile.TarInfo] = {}
    with_secrets = []
    saved = subprocess.run(["docker", "save", image], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest
        layers = json.load(manifest)[0]["Layers"]
        assert len(layers) == len(layers_of(image))
        for layer in layers[len(layers_of(base)) :]:
            with tarfile.open(fileobj=archive.extractfile(layer)) as entries:
                for entry in entries:
                    files[f"/{entry.name}"] = entry
                    if entry.isfile():
                        file = entries.extractfile(entry)
                        if file and SECRET.encode() in file.read():
                            with_secrets.append(entry.name)
    return files, with_secrets


def test_it_is_healthy_soon(story: Story) -> None:
    """The engine's own check says so within ten seconds of the start."""
    assert story.healthy_seconds < HEALTHY_SECONDS_MAX


def test_it_runs_as_nobody(story: Story) -> None:
    """As a user that has a number and no name, and with no group of others."""
    assert story.user == "uid=10001 gid=10001 groups=10001\n"


def test_it_needs_no_rights(story: Story) -> None:
    """It has done all this without a capability, and can get none."""
    assert story.limits == NO_RIGHTS


def test_what_a_job_prints_is_told_at_once(story: Story) -> None:
    """Not when there is enough of it, or the server has something to say."""
    assert "endless has begun\n" in story.log


def test_it_stops_within_the_time_that_docker_gives(story: Story) -> None:
    """A slow client holds it for two seconds, a job for its grace; then it ends by itself."""
    assert story.exit_code == 0
    assert DRAIN_SECONDS + GRACE_SECONDS <= story.stop_seconds < STOP_SECONDS_MAX


def test_a_run_that_the_stop_cut_short_is_made_good(story: Story) -> None:
    """It is `interrupted`, and the next start of the container runs the job again at once."""
    first, second = story.runs
    assert (first["run_no"], first["outcome"]) == (1, "interrupted")
    assert (second["run_no"], second["outcome"]) == (2, None)


def test_sessions_survive_a_restart(story: Story) -> None:
    """They are on the volume."""
    status, session = story.session
    assert (status, session["user"]) == (200, "ada")


def test_what_is_in_it(story: Story) -> None:
    """The dependencies, the app as baked, an empty folder for the data, and what is compiled."""
    app = {
        f"/app/{path.relative_to(story.service / 'app')}"
        for path in (story.service / "app").rglob("*.*")
        if path.is_file() and path.parent.name != "__pycache__"
    }
    inside = {name for name, entry in story.files.items() if not entry.isdir()}
    compiled = {name for name in inside if re.search(r"/__pycache__/[^/]+\.pyc$", name)}
    assert {name for name in inside - compiled if not name.startswith("/venv/")} == app
    own = [name for name in compiled if name.startswith("/app/")]
    assert len(own) == sum(name.endswith(".py") for name in app)
    library = [name for name in compiled if name.startswith("/usr/local/lib/python")]
    assert any("/http/" in name for name in library), "a check compiles what it needs each time"
    assert (story.files["/data"].uid, story.files["/data"].gid) == (10001, 10001)


def test_nobody_can_change_what_runs(story: Story) -> None:
    """Code and dependencies belong to root; others may read them, and nobody else may write."""
    for name, entry in story.files.items():
        if name != "/data" and not entry.issym():
            assert (entry.uid, entry.gid) == (0, 0), name
            assert entry.mode & 0o022 == 0, name
            assert entry.mode & 0o004, name


def test_it_holds_no_secret(story: Story) -> None:
    """What lies about in the folder of who builds it is in no layer."""
    assert story.with_secrets == []


def test_it_has_no_tools_to_build_with(story: Story) -> None:
    """No compiler, nor pip's cache, nor a second pip."""
    assert story.compilers == []
    assert [name for name in story.files if "/.cache" in name] == []
    assert [name for name in story.files if name.endswith("/site-packages/pip")] == []


def test_it_is_small(story: Story) -> None:
    """Its dependencies and little else."""
    assert 30 < story.megabytes < MEGABYTES_MAX
