"""Runs tests in a copy of the service, each time in a fork of this process, which has all imported.

Usage: python -P worker.py FOLDER, which the parent starts. Each line of the standard input is a
request and each line of the standard output its answer, in JSON:

- {"do": "collect", "arguments": pytest's}: the tests. What they import from elsewhere is imported
  into this process, and so are those who come after: that is most of the time of a small run.
- {"do": "survey", "tests": [...]}: how long each takes, and which lines of the app it runs.
- {"do": "try", "file", "source", "limits": {test: seconds}, "seconds"}: what became of the mutant.
  Each test has its limit, and all of them have `seconds`. The file is written, so processes that
  tests start have the mistake too, and it is restored.

The app itself is imported by each fork anew: a mistake outside of functions is made by importing.
A fork and what it has started is killed after its answer, or without one when its time is over.
"""

import gc
import importlib
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import coverage
import pytest

FLAGS = ("-x", "-q", "--tb=no", "--show-capture=no", "-p", "no:cacheprovider", "-p", "no:randomly")

# Beyond any source's own: what Python has compiled of the original is not taken for the mutant.
MUTANT_MTIME = 2_000_000_000

Answer = dict[str, Any]

running = set[int]()
"""The fork that is under way."""


def main(folder: Path) -> None:
    """Answer until there is no more request."""
    os.chdir(folder)
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who has started us hears it too, and ends us
    os.environ["COVERAGE_CORE"] = "ctrace"  # the only one that tells tests apart
    tell = os.fdopen(os.dup(1), "w")
    silence = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    pytest.main(["--collect-only", "--noconftest", "pytest.ini"])  # who else imports its plugins?
    for line in sys.stdin:
        answer = answer_to(json.loads(line))
        print(json.dumps(answer), file=tell, flush=True)


def answer_to(request: Answer) -> Answer:
    """Do what is asked for."""
    if request["do"] == "collect":
        answer = forked(lambda: collect(request["arguments"]), None)
        for name in answer.pop("modules", ()):
            with suppress(Exception):
                importlib.import_module(name)
        gc.freeze()  # pytest collects garbage ten times at its end: forks need not look here
        return answer
    if request["do"] == "survey":
        return forked(lambda: survey(request["tests"]), None)
    file, original = Path(request["file"]), Path(request["file"]).read_bytes()
    status = file.stat()
    file.write_text(request["source"], encoding="utf-8")
    os.utime(file, (MUTANT_MTIME, MUTANT_MTIME))
    try:
        return forked(lambda: try_tests(request["limits"]), request["seconds"])
    finally:
        file.write_bytes(original)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def forked(work: Callable[[], Answer], seconds: float | None) -> Answer:
    """Let a fork of this process answer, and tell if it, or a test in it, has hung, or died."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.close(reading)
        try:
            text = json.dumps(work())
        except BaseException:
            text = json.dumps({"refused": traceback.format_exc()})
        finally:
            with os.fdopen(writing, "w") as pipe:
                pipe.write(text)
            os._exit(0)
    os.close(writing)
    running.add(pid)
    with os.fdopen(reading) as pipe:
        ready = select.select([pipe], [], [], seconds)[0]
        text = pipe.read() if ready else ""
    kill(pid)
    status = os.waitpid(pid, 0)[1]
    running.remove(pid)
    if text:
        answer: Answer = json.loads(text)
        return answer
    return {"hung" if not ready or os.WTERMSIG(status) == signal.SIGALRM else "died": True}


def kill(pid: int) -> None:
    """Kill a fork and all that it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)  # it may not have had the time to lead a group


def end(*_: object) -> None:
    """End at once, with what is under way. An exception might be lost where it is raised."""
    for pid in running:
        kill(pid)
    os._exit(0)


class Chosen:
    """A plugin: runs these tests in this order, and remembers what has failed."""

    def __init__(self, tests: Sequence[str]) -> None:
        """Run no others."""
        self.order = {test: place for place, test in enumerate(tests)}
        self.failed = ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what the mutant has renamed: that alone does not notice it."""
        items[:] = [item for item in items if item.nodeid in self.order]
        items.sort(key=lambda item: self.order[item.nodeid])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember what cannot be imported."""
        if report.failed:
            self.failed = self.failed or report.nodeid

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember the first that fails."""
        if report.failed:
            self.failed = self.failed or report.nodeid

    def arguments(self) -> list[str]:
        """Name the functions that they are in, so that no others are collected."""
        return list(dict.fromkeys(test.split("[")[0] for test in self.order))


class Limited(Chosen):
    """Also ends this process when one of them takes too long."""

    def __init__(self, limits: Mapping[str, float]) -> None:
        """Give each its limit, in seconds."""
        super().__init__([*limits])
        self.limits = limits

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        """Nothing handles this signal, so nothing can be too stuck for it."""
        signal.setitimer(signal.ITIMER_REAL, self.limits[item.nodeid])
        yield
        signal.setitimer(signal.ITIMER_REAL, 0)


class Survey(Chosen):
    """Also measures them."""

    def __init__(self, tests: Sequence[str]) -> None:
        """Measure the app, from its import on."""
        super().__init__(tests)
        self.seconds: dict[str, float] = {}
        self.coverage = coverage.Coverage(data_file=None, config_file=False, source=["app"])

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        """Count its fixtures as its own."""
        began = perf_counter()
        self.coverage.switch_context(item.nodeid)
        yield
        self.coverage.switch_context("")
        self.seconds[item.nodeid] = perf_counter() - began


class Collected:
    """A plugin: the tests that pytest would run."""

    def __init__(self) -> None:
        """Begin with none."""
        self.tests: list[str] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Take them as they are after all that selects."""
        self.tests = [item.nodeid for item in session.items]


def collect(arguments: Sequence[str]) -> Answer:
    """Return the tests, and the modules that are not the service's own."""
    collected = Collected()
    code = pytest.main([*FLAGS, "--collect-only", *arguments], plugins=[collected])
    here = f"{Path.cwd()}{os.sep}"
    files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
    modules = [name for name, file in files.items() if file and not file.startswith(here)]
    return {"code": code, "tests": collected.tests, "modules": modules}


def survey(tests: Sequence[str]) -> Answer:
    """Return how long each takes, and which of them run each line of the app."""
    plugin = Survey(tests)
    plugin.coverage.start()
    code = pytest.main([*FLAGS, *plugin.arguments()], plugins=[plugin])
    plugin.coverage.stop()
    data, number = plugin.coverage.get_data(), {test: n for n, test in enumerate(plugin.seconds)}
    lines = {
        Path(file).relative_to(Path.cwd().resolve()).as_posix(): {
            line: [number[test] for test in tests if test]
            for line, tests in data.contexts_by_lineno(file).items()
        }
        for file in data.measured_files()
    }
    return {"code": code, "failed": plugin.failed, "seconds": plugin.seconds, "lines": lines}


def try_tests(limits: Mapping[str, float]) -> Answer:
    """Return whether one fails, and which."""
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    plugin = Limited(limits)
    try:
        code = pytest.main([*FLAGS, *plugin.arguments()], plugins=[plugin])
    except Exception:  # a warning at its very end, which is an error in a test
        traceback.print_exc()
        return {"killed": True, "by": plugin.failed or "its end"}
    passed = code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    return {"killed": not passed, "by": plugin.failed or "its import"}


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
