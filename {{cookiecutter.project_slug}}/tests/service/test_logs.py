"""The log: what the start says, and what each line of a run carries."""

import importlib
import json
import logging
import pkgutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import app
from app.cron import JobContext, crontab, every, job
from app.main import create_app
from app.settings import Settings
from support import FakeClock, fixed, on_postgres, running
from support.databases import name_of

Capture = pytest.CaptureFixture[str]


@job(every(minutes=5))
async def often() -> None:
    """Comes soon."""


@job(crontab("0 3 * * *"))
async def nightly() -> None:
    """Comes late."""


async def test_the_first_line_says_what_will_happen(
    clock: FakeClock, tmp_path: Path, capsys: Capture
) -> None:
    """How many jobs, the whole path of the database, and what is due next, and when."""
    app = create_app(jobs=[often, nightly], clock=clock, random=fixed(0.5))
    async with running(app, clock):
        [line] = text_lines(capsys)
    assert line == (
        f"INFO cron: 2 jobs, SQLite {tmp_path}/data/app.db (this machine only), lease 30 s, "
        "next often in 5.0 s"
    )


@on_postgres
async def test_the_first_line_shows_no_password(
    clock: FakeClock, settings: Settings, capsys: Capture
) -> None:
    """Nor whose it is: logs are read by many."""
    url = settings.url.set(password=settings.url.password or "SECRET")
    secret = Settings(database_url=url.render_as_string(hide_password=False))
    async with running(create_app(secret, jobs=[], clock=clock), clock):
        assert text_lines(capsys) == [f"INFO cron: 0 jobs, {told_as(settings)}, lease 30 s"]
    assert str(url.password) not in name_of(settings)


async def test_one_job_is_counted_as_one(
    clock: FakeClock, settings: Settings, capsys: Capture
) -> None:
    """It says "1 job", not "1 jobs"."""

    @job(every(hours=2, jitter=0))
    async def tidy() -> None: ...

    async with running(create_app(settings, jobs=[tidy], clock=clock), clock):
        assert text_lines(capsys)[0] == (
            f"INFO cron: 1 job, {told_as(settings)}, lease 30 s, next tidy in 0.0 s"
        )


async def test_nothing_is_next_without_jobs(
    clock: FakeClock, settings: Settings, capsys: Capture
) -> None:
    """An app without jobs says so."""
    async with running(create_app(settings, jobs=[], clock=clock), clock):
        assert text_lines(capsys) == [f"INFO cron: 0 jobs, {told_as(settings)}, lease 30 s"]


async def test_the_first_line_says_that_cron_is_off(
    clock: FakeClock, settings: Settings, capsys: Capture
) -> None:
    """With CRON_ENABLED=false it names the variable, and how many jobs that concerns."""
    off = settings.model_copy(update={"cron_enabled": False})
    async with running(create_app(off, jobs=[often, nightly], clock=clock), clock):
        at = name_of(settings)
        assert text_lines(capsys) == [f"INFO cron: off, 2 jobs not started by this process, {at}"]


async def test_the_start_remarks_on_a_daily_interval(
    clock: FakeClock, settings: Settings, capsys: Capture
) -> None:
    """Who writes every(days=1) is told what gaps that means, and what else they may have meant."""

    @job(every(days=1))
    async def tidy() -> None: ...

    async with running(create_app(settings, jobs=[tidy], clock=clock), clock):
        _, line = text_lines(capsys)
    assert line == (
        "INFO cron: tidy, every(days=1): gaps of 16.8 to 31.2 hours; "
        "for once a calendar day use crontab('0 3 * * *')"
    )


async def test_a_line_of_text_tells_how_a_run_ended(
    clock: FakeClock, settings: Settings, capsys: Capture
) -> None:
    """The job, the number of the run, its outcome, its note, and when the next one is due."""

    @job(every(minutes=5, jitter=0))
    async def tidy() -> str:
        return "3 things\nin order"

    async with running(create_app(settings, jobs=[tidy], clock=clock), clock):
        await clock.advance(minutes=5)
        assert text_lines(capsys)[1:] == [
            "INFO tidy run 1: ok, 3 things in order; next in 5 min",
            "INFO tidy run 2: ok, 3 things in order; next in 5 min",
        ]


async def test_a_line_of_text_begins_with_its_time(
    clock: FakeClock, settings: Settings, capsys: Capture
) -> None:
    """A reader sees when it was written, to the millisecond."""
    async with running(create_app(settings, jobs=[], clock=clock), clock):
        time = capsys.readouterr().err.partition(" INFO ")[0]
    assert datetime.strptime(time, "%Y-%m-%d %H:%M:%S,%f")  # noqa: DTZ007 -- in local time


async def test_each_line_is_json_where_that_is_wanted(
    clock: FakeClock, settings: Settings, capsys: Capture
) -> None:
    """With LOG_FORMAT=json each line is an object with its time, level, logger and message."""

    @job(every(minutes=5, jitter=0))
    async def tidy(ctx: JobContext) -> None:
        ctx.log.warning('"quoted",\nin %d lines, é', 2)

    @job(every(minutes=5, jitter=0))
    def fail() -> None:
        raise KeyError("no\nsuch key")

    app = create_app(in_json(settings), jobs=[tidy, fail], clock=clock)
    async with running(app, clock):
        await clock.advance(seconds=1)  # two that are due together wait for each other a moment
        lines = json_lines(capsys)
    assert len(lines) == 5
    for line in lines:
        assert {"time", "level", "logger", "message"} <= line.keys()
        assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)


async def test_a_json_line_carries_how_a_run_ended(
    clock: FakeClock, settings: Settings, capsys: Capture
) -> None:
    """Beside the message: the job, the number of the run, and the outcome."""

    @job(every(minutes=5, jitter=0))
    async def tidy() -> str:
        return "3 things"

    async with running(create_app(in_json(settings), jobs=[tidy], clock=clock), clock):
        *_, line = json_lines(capsys)
    del line["time"]
    assert line == {
        "level": "INFO",
        "logger": "app.cron.job",
        "message": "tidy run 1: ok, 3 things; next in 5 min",
        "job": "tidy",
        "run_no": 1,
        "outcome": "ok",
    }


async def test_a_json_line_of_a_job_names_its_run(
    clock: FakeClock, settings: Settings, capsys: Capture
) -> None:
    """What the body logs carries the job and the number of the run, and no outcome yet."""

    @job(every(minutes=5, jitter=0))
    async def tidy(ctx: JobContext) -> None:
        ctx.log.warning('"quoted",\nin %d lines, é', 2)

    async with running(create_app(in_json(settings), jobs=[tidy], clock=clock), clock):
        _, line, _ = json_lines(capsys)
    del line["time"]
    assert line == {
        "level": "WARNING",
        "logger": "app.cron.job",
        "message": 'tidy run 1: "quoted",\nin 2 lines, é',
        "job": "tidy",
        "run_no": 1,
    }


async def test_a_failed_run_is_logged_with_its_traceback_as_text(
    clock: FakeClock, settings: Settings, capsys: Capture
) -> None:
    """The line says what failed; below it stands where."""

    @job(every(minutes=5, jitter=0))
    async def fail() -> None:
        raise ValueError("no such thing")

    async with running(create_app(settings, jobs=[fail], clock=clock), clock):
        log = capsys.readouterr().err
    assert "ERROR fail run 1: error: no such thing\nTraceback (most recent call last):\n" in log
    assert '    raise ValueError("no such thing")\n' in log
    assert "INFO fail run 1: error, ValueError: no such thing; next in 5.0 s\n" in log


async def test_a_failed_run_is_logged_with_its_traceback_as_json(
    clock: FakeClock, settings: Settings, capsys: Capture
) -> None:
    """The traceback is a field of the line, and the outcome is one of the next."""

    @job(every(minutes=5, jitter=0))
    def fail() -> None:
        raise ValueError("no such thing")

    async with running(create_app(in_json(settings), jobs=[fail], clock=clock), clock):
        _, failure, end = json_lines(capsys)
    assert (failure["level"], failure["job"], failure["run_no"]) == ("ERROR", "fail", 1)
    assert failure["traceback"].startswith("Traceback (most recent call last):\n")
    assert failure["traceback"].endswith("ValueError: no such thing")
    assert (end["outcome"], "traceback" in end) == ("error", False)


async def test_the_level_decides_what_is_logged(
    clock: FakeClock, settings: Settings, capsys: Capture
) -> None:
    """With LOG_LEVEL=ERROR, a good start and good runs say nothing, a failed run says why."""

    @job(every(minutes=5, jitter=0))
    async def fail(ctx: JobContext) -> None:
        if ctx.run_no > 1:
            raise ValueError("no such thing")

    quiet = settings.model_copy(update={"log_level": "ERROR"})
    async with running(create_app(quiet, jobs=[fail], clock=clock), clock):
        assert capsys.readouterr().err == ""
        await clock.advance(minutes=5)
        assert text_lines(capsys)[0] == "ERROR fail run 2: error: no such thing"


async def test_the_level_may_be_debug(
    clock: FakeClock, settings: Settings, capsys: Capture
) -> None:
    """With LOG_LEVEL=DEBUG, what a job logs for its author is seen; by default it is not."""

    @job(every(minutes=5, jitter=0))
    async def tidy(ctx: JobContext) -> None:
        ctx.log.debug("details")

    for level, seen in [("INFO", False), ("DEBUG", True)]:
        chosen = settings.model_copy(update={"log_level": level})
        async with running(create_app(chosen, jobs=[tidy], clock=clock), clock):
            await clock.advance(minutes=5)
            lines = [line for line in text_lines(capsys) if line.startswith("DEBUG tidy run")]
            assert bool(lines) == seen


async def test_a_second_app_does_not_repeat_lines(
    clock: FakeClock, settings: Settings, capsys: Capture
) -> None:
    """Two apps in one process, as in tests, write each line once."""
    create_app(settings, jobs=[], clock=clock)
    async with running(create_app(settings, jobs=[], clock=clock), clock):
        assert len(text_lines(capsys)) == 1


def test_a_line_tells_which_module_has_written_it() -> None:
    """Its logger has the module's name: by that, levels and handlers are set."""
    modules = [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(app.__path__, "app.")
        if not module.name.endswith("__main__")
    ]
    names = {module.__name__: module.log.name for module in modules if hasattr(module, "log")}
    assert len(names) > 5
    assert [*names] == [*names.values()]


def test_other_loggers_are_left_alone(clock: FakeClock, settings: Settings) -> None:
    """The root logger keeps its handlers and its level: they belong to who runs the process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    create_app(settings.model_copy(update={"log_level": "DEBUG"}), jobs=[], clock=clock)
    assert (root.handlers, root.level) == (handlers, level)


def told_as(settings: Settings) -> str:
    """The first line says of SQLite that it is no place for several machines."""
    is_file = settings.url.get_backend_name() == "sqlite"
    return f"{name_of(settings)}{' (this machine only)' if is_file else ''}"


def in_json(settings: Settings) -> Settings:
    """The same, with LOG_FORMAT=json."""
    return settings.model_copy(update={"log_format": "json"})


def text_lines(capsys: Capture) -> list[str]:
    """What has been logged since the last look, without the time of each line."""
    return [line[24:] for line in capsys.readouterr().err.splitlines()]


def json_lines(capsys: Capture) -> list[dict[str, Any]]:
    """What has been logged since the last look, each line as the object that it must be."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize(
    ("path", "status", "logged"),
    [
        ("/health/live", 200, False),
        ("/health/ready", 200, False),
        ("/health/ready", 503, True),
        ("/healthy", 200, True),
        ("/sessions", 201, True),
    ],
)
def test_probes_that_go_well_are_not_logged(
    settings: Settings, caplog: pytest.LogCaptureFixture, path: str, status: int, logged: bool
) -> None:
    """They come every few seconds and would hide what jobs and clients do."""
    create_app(settings)
    arguments = ("127.0.0.1:50000", "GET", path, "1.1", status)  # uvicorn's own
    logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', *arguments)
    assert bool(caplog.records) == logged


def test_what_else_uvicorn_logs_there_is_let_through(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """A line that has another form is no probe's."""
    create_app(settings)
    logging.getLogger("uvicorn.access").info("anything")
    logging.getLogger("uvicorn.access").info("%s of %s", 1, 2)
    assert [record.message for record in caplog.records] == ["anything", "1 of 2"]
