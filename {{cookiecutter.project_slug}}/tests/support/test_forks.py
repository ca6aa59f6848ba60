"""Forks: as a process that has started."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .process import CAN_FORK, Command, Process, wait_until

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="there are no forks here")

# What a program can see of how it was started, and what Python does for it when it ends.
PROGRAM = """
import atexit, json, os, signal, sys, threading, time

def late():
    time.sleep(0.05)
    print("the last thread")

print(json.dumps({
    "name": __name__,
    "arguments": sys.argv,
    "path": sys.path,
    "folder": os.getcwd(),
    "environment": sorted(os.environ.items()),
    "zone": time.tzname,
    "signals": [repr(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
    "outputs": [
        [file.encoding, file.errors, file.line_buffering, file.write_through, file.seekable(),
         file.fileno(), file.isatty(), type(file.buffer).__name__]
        for file in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    ],
    "threads": threading.active_count(),
    "files": sorted(os.listdir("/proc/self/fd")),
    "children": open(f"/proc/self/task/{os.getpid()}/children").read(),
}), flush=True)
print("an error", file=sys.stderr, flush=True)
atexit.register(print, "the end")
threading.Thread(target=late).start()
sys.exit(7)
"""


class FreshCommand(Command):
    """A command that has no part of its start done for it."""

    forked = False


@pytest.fixture(autouse=True, scope="module")
def an_earlier_one(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What all are forked from has begun before the environment of a test."""
    folder = tmp_path_factory.mktemp("earlier")
    (folder / "service.py").touch()
    with Command(folder) as command:
        assert command.end() == (0, "")


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """What a script starts by `&` ignores SIGINT, and so do processes of tests; forks never do."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the program, and an environment of the test's own."""
    monkeypatch.setenv("TZ", "America/St_Johns")
    monkeypatch.setenv("WORD", "äöü\nß")
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    (tmp_path / "service.py").write_text(PROGRAM)
    return tmp_path


def test_a_fork_is_as_a_start(folder: Path) -> None:
    """It sees the same, and ends alike: with its threads, what is for its end, and its code."""
    seen = []
    for kind in (Command, FreshCommand):
        with kind(folder, "one", "two words", VALUE="") as command:
            code, output = command.end()
        assert (code, command.output) == (7, "an error\n")
        sees, *last = output.splitlines()
        assert last == ["the last thread", "the end"]
        seen.append(json.loads(sees))
    assert seen[0] == seen[1]
    assert seen[0]["arguments"] == ["service.py", "one", "two words"]


@pytest.mark.parametrize("options", [[], ["-u"]], ids=["buffered", "unbuffered"])
def test_a_module_is_run_as_at_a_start(folder: Path, options: list[str]) -> None:
    """From the folder that it works in, with an output that is buffered, or is not."""
    (folder / "program.py").write_text(PROGRAM)
    outputs = []
    for forked in (True, False):
        kind: type[Process] = type("Kind", (Process,), {"forked": forked})
        with kind(folder, *options, "-m", "program", "word", environment={}) as process:
            assert process.wait_for_end() == 7
            outputs.append(process.output)
    assert outputs[0] == outputs[1]
    assert str(folder / "program.py") in outputs[0]


def test_a_fork_that_a_signal_ends_says_which(tmp_path: Path) -> None:
    """As Popen does."""
    (tmp_path / "service.py").write_text("import time\nopen('begun', 'w')\ntime.sleep(60)\n")
    with Command(tmp_path) as command:
        wait_until((tmp_path / "begun").exists)
        assert command.popen.poll() is None
        command.popen.send_signal(signal.SIGTERM)
        assert command.end() == (-signal.SIGTERM, "")


def test_a_fork_ends_with_its_block(tmp_path: Path) -> None:
    """However that ends."""
    (tmp_path / "service.py").write_text("import time\ntime.sleep(60)\n")
    with pytest.raises(KeyError), Command(tmp_path) as command:
        raise KeyError
    assert command.popen.returncode == -signal.SIGKILL
    wait_until(lambda: not Path(f"/proc/{command.popen.pid}").exists())
