"""The shell: what it shows, runs and changes, and how it refuses. Time stands still meanwhile."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any

import pytest
import time_machine

from app.cron import JobContext, crontab, every, job
from app.cron.__main__ import main
from app.cron.clock import SystemClock
from app.cron.command_line import read_arguments
from app.cron.records import JobRecord, Records
from app.cron.schedule import Every
from app.cron.scheduler import Scheduler
from app.cron.shell import Shell as Commands
from app.cron.sql_store import SqlStore
from app.cron.store import Claim, Finish, StoreUnavailable
from app.db import database_at
from app.main import create_app
from app.settings import Settings
from support import FakeClock, on_sqlite, query, running
from support.databases import contents, cron_database, locked, path_of
from support.stores import after, first_in, ok, sql_store

START = datetime(2026, 1, 1, tzinfo=UTC)


@job(every(minutes=5, jitter=0))
async def tick() -> str:
    """Does well."""
    return "gone: 3"


@job(every(minutes=5, jitter=0))
async def fail() -> None:
    """Does not."""
    raise ValueError("the reason")


@job(every(minutes=5, jitter=0))
async def last(ctx: JobContext) -> None:
    """Takes a while."""
    await ctx.clock.sleep(0.2)


@job(crontab("0 3 * * *"))
async def nightly() -> None:
    """Waits for the night."""


@job(every(minutes=1), each_process=True)
async def warm_up() -> None:
    """Belongs to each process."""


@dataclass(frozen=True)
class Answer:
    """The exit code of a command, and what it has written to the two outputs."""

    code: int
    lines: list[str]
    errors: list[str]
    log: list[str] = field(default_factory=list, compare=False)
    """No part of the answer, but it may tell why an answer is wrong."""

    @property
    def first(self) -> str:
        """The first line of the output. Where there is none, the failure shows all else."""
        return self._line(0)

    @property
    def second(self) -> str:
        """The second line: of a table, the first below the heads."""
        return self._line(1)

    def _line(self, place: int) -> str:
        assert len(self.lines) > place, f"{self}"
        return self.lines[place]

    @property
    def json(self) -> Any:
        """The output, as a program reads it."""
        return json.loads("\n".join(self.lines))


class WallClock(SystemClock):
    """The clock of this machine, also where Postgres has one: the tests set it."""


class Shell:
    """A command line, at a time that the test sets."""

    def __init__(
        self,
        settings: Settings,
        capsys: pytest.CaptureFixture[str],
        traveller: time_machine.Traveller,
    ) -> None:
        self.settings = settings
        self._capsys = capsys
        self._traveller = traveller

    def __call__(self, words: str, *jobs: Callable[..., Any]) -> Answer:
        """Do what the words say, where these are the jobs."""
        self._capsys.readouterr()
        code = main(words.split(), jobs=jobs, clock=WallClock())
        out, err = self._capsys.readouterr()
        errors, log = list[str](), list[str]()
        for line in err.splitlines():
            (log if line.startswith("{") else errors).append(line)
        return Answer(code, out.splitlines(), errors, log)

    def wait(self, **amounts: float) -> None:
        """Let time pass."""
        self._traveller.shift(timedelta(**amounts))

    def move_to(self, moment: datetime) -> None:
        """Let it be that late."""
        self._traveller.move_to(moment)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the database, or change it."""
        return query(self.settings, statement)

    def change(self, assignments: str) -> None:
        """Change the rows of all jobs."""
        self.query(f"UPDATE cron_job SET {assignments}")  # noqa: S608 -- a test's own

    def contents(self) -> object:
        """All that is in the engine's tables."""
        return contents(self.settings)

    @property
    def database_name(self) -> str:
        """Which database it is, as people are told."""
        return database_at(self.settings.url).name

    def make_database(self) -> None:
        """Let there be a database, in which no job is known yet."""
        with cron_database(self.settings.url):
            pass

    def claim_elsewhere(self, name: str = "tick", *, end: bool = False) -> None:
        """Let another process begin a run of the job, or make one."""

        async def claim() -> None:
            with cron_database(self.settings.url) as database:
                store = sql_store(database, WallClock(), owner="rival")
                [look] = await store.register([first_in(timedelta(0), name)])
                claimed = await store.claim([replace(after(look.run_no, name), forced=True)])
                if end:
                    await store.finish([ok(run) for run in claimed])

        asyncio.run(claim())

    def check_in(
        self, owner: str, *, stop: bool = False, absence: tuple[datetime, datetime] | None = None
    ) -> None:
        """Let a process say that it is alive, and then perhaps that it has stopped."""

        async def check_in() -> None:
            with cron_database(self.settings.url) as database:
                store = sql_store(database, WallClock(), owner=owner)
                await store.check_in(absence)
                if stop:
                    await store.check_out()

        asyncio.run(check_in())


@pytest.fixture
def shell(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shell]:
    """A command line in the first moment of 2026, without a database."""
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    monkeypatch.setenv("LOG_FORMAT", "json")  # a traceback is in the line that it belongs to
    monkeypatch.delenv("NO_COLOR", raising=False)
    with time_machine.travel(START, tick=False) as traveller:
        yield Shell(settings, capsys, traveller)


@pytest.fixture
def terminal(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes the output a terminal that is so wide."""

    def make(columns: int) -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", f"{columns}")

    return make


def test_a_failure_shows_why_a_command_has_printed_nothing(shell: Shell) -> None:
    """Its exit code, its errors and its log, which otherwise does not count."""
    shell.claim_elsewhere()
    answer = shell("run tick", tick)
    assert answer == Answer(75, [], ["tick is running elsewhere, in rival"])
    with pytest.raises(AssertionError, match=r"code=75, .*running elsewhere.*cron: off"):
        _ = answer.first


# list


def test_list_shows_jobs_that_no_process_has_started(shell: Shell) -> None:
    """In a new folder: it makes the database, and shows what the code has."""
    assert shell("list", tick, nightly, warm_up) == Answer(
        0,
        [
            "JOB      SCHEDULE              NEXT RUN         LAST RUN",
            "nightly  crontab('0 3 * * *')  not yet known    never",
            "tick     every(minutes=5)      not yet known    never",
            "warm_up  every(minutes=1)      in each process",
            "",
            "no process is alive: no job starts by itself",
            f"database: {shell.database_name}",
        ],
        [],
    )


def test_list_shows_when_a_job_is_due_and_how_its_last_run_was(shell: Shell) -> None:
    """How long it is until then, and when that is; how long ago, how it ended, and its note."""
    shell("run tick", tick, nightly)
    shell.wait(minutes=1)
    assert shell("list", tick, nightly).lines[:3] == [
        "JOB      SCHEDULE              NEXT RUN       UTC       LAST RUN   OUTCOME  RUNS  NOTE",
        "nightly  crontab('0 3 * * *')  in 2 h 59 min  03:00:00  never                  0",
        "tick     every(minutes=5)      in 4 min       00:05:00  1 min ago  ok          1  gone: 3",
    ]


def test_list_shows_the_date_of_another_day(shell: Shell) -> None:
    """A time alone would be read as today's."""
    shell("run-due", nightly)
    shell.wait(hours=-1)
    assert "  in 4 h    Jan 01 03:00  never" in shell("list", nightly).second


def test_list_shows_errors_and_how_many_in_a_row(shell: Shell) -> None:
    """The runs so far, and what the last of them have in common."""
    shell("run fail", fail)
    shell("run fail", fail)
    answer = shell("list", fail)
    assert answer.first.endswith("OUTCOME  RUNS  FAILED  NOTE")
    assert answer.second.endswith("error       2  last 2  ValueError: the reason")


@pytest.mark.parametrize(
    ("change", "next_run"),
    [
        ("next_run_at = 0", "now       Jan 01 00:00"),
        ("requested_at = 1", "now       Jan 01 00:00"),
        ("requested_at = 1, paused = TRUE", "now       Jan 01 00:00"),
        ("paused = TRUE", "paused  "),
        ("paused = TRUE, next_run_at = 0", "paused  "),
    ],
)
def test_list_shows_what_is_due_or_paused(shell: Shell, change: str, next_run: str) -> None:
    """Now is what is overdue or was asked for. What is paused is due only if it was asked for."""
    shell("run tick", tick)
    shell.change(change)
    assert shell("list", tick).second.startswith(f"tick  every(minutes=5)  {next_run}  0.0 s ago")


def test_list_shows_a_run_under_way_and_where(shell: Shell) -> None:
    """For as long as its lease holds. After that, it is abandoned."""
    shell.claim_elsewhere()
    shell.wait(seconds=29)
    assert shell("list", tick).second.endswith("29 s ago  running     1  rival")
    shell.wait(seconds=1)
    assert shell("list", tick).second.endswith("30 s ago  abandoned     1")


def test_list_shows_jobs_that_this_code_does_not_have(shell: Shell) -> None:
    """Of newer code, renamed or removed: nobody can tell whether one that is overdue will run."""
    shell("run tick", tick)
    assert shell("list").second.startswith("tick  not in this code  in 5 min  00:05:00  ")
    shell.wait(minutes=5)
    assert shell("list").second.startswith("tick  not in this code  overdue   00:05:00  ")


def test_list_shows_processes_seen_in_the_last_three_minutes(shell: Shell) -> None:
    """Since when they run, and when they were seen. Not those that have stopped."""
    shell.check_in("silent")
    shell.wait(seconds=1)
    shell.check_in("slow")
    shell.check_in("stopped", stop=True)
    shell.wait(minutes=3)
    shell.check_in("new")
    assert shell("list", tick).lines[3:] == [
        "ALIVE  STARTED (UTC)        SEEN",
        "slow   2026-01-01 00:00:01  3 min ago",
        "new    2026-01-01 00:03:01  0.0 s ago",
        f"database: {shell.database_name}",
    ]


def test_list_shows_for_a_day_that_a_process_did_not_run(shell: Shell) -> None:
    """From when to when; after that day, no more."""
    shell.check_in("one", absence=(START - timedelta(hours=8), START))
    line = "one did not run from 2025-12-31 16:00:00 to 2026-01-01 00:00:00 UTC"
    shell.wait(days=1)
    assert shell("list", tick).lines[-2] == line
    shell.wait(seconds=1)
    assert line not in shell("list", tick).lines


def test_list_shows_which_file_it_has_read(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whole: it may be another one than the service's."""
    monkeypatch.delenv("DATABASE_URL")
    path = str(tmp_path / "data/app.db")
    assert shell("list", tick).lines[-1] == f"database: SQLite {path}"
    assert shell("list --json", tick).json["database"] == f"SQLite {path}"


def test_list_is_json_for_programs(shell: Shell) -> None:
    """Jobs that the database has or not, whole or null, and all processes it knows of."""
    shell("run tick", tick)
    shell.check_in("one", stop=True)
    jobs = shell("list --json", warm_up).json["jobs"]
    assert [(each["name"], each["in_code"], each["each_process"]) for each in jobs] == [
        ("tick", False, None),
        ("warm_up", True, True),
    ]
    assert jobs[0]["next_run_at"] == "2026-01-01T00:05:00+00:00"
    assert jobs[0]["last_run"]["outcome"] == "ok"
    assert jobs[0]["counts"]["ok"] == 1
    assert jobs[0]["schedule"] is None
    assert jobs[1]["schedule"] == "every(minutes=1)"
    assert {jobs[1][key] for key in jobs[0] if key not in jobs[1] or jobs[1][key] is None} == {None}
    [process] = shell("list --json", tick).json["processes"]
    assert process["stopped_at"] == "2026-01-01T00:00:00+00:00"


# Tables


@on_sqlite
@pytest.mark.parametrize(
    ("outcome", "colour"),
    [("ok", 32), ("error", 31), ("timeout", 31), ("interrupted", 33), ("missed", 33)],
)
def test_a_terminal_shows_outcomes_in_colours(
    shell: Shell, terminal: Callable[[int], None], outcome: str, colour: int
) -> None:
    """Green is well, red is not, and yellow is neither."""
    shell("run tick", tick)
    shell.query(f"UPDATE cron_run SET outcome = '{outcome}'")  # noqa: S608 -- a test's own
    terminal(200)
    for command in ("list", "history tick"):
        assert f"\x1b[{colour}m{outcome}\x1b[0m  " in shell(command, tick).second


@on_sqlite
def test_a_terminal_shows_the_end_of_a_run_in_colours(
    shell: Shell, terminal: Callable[[int], None]
) -> None:
    """As in the table."""
    terminal(200)
    assert shell("run tick", tick).first.startswith("tick run 1: \x1b[32mok\x1b[0m, gone: 3")


@on_sqlite
def test_no_color_is_respected(
    shell: Shell, terminal: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What https://no-color.org asks for."""
    shell("run tick", tick)
    terminal(200)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in "".join(shell("list", tick).lines + shell("run tick", tick).lines)


@on_sqlite
@pytest.mark.parametrize("columns", [60, 70, 80, 90, 100, 120, 140, 160, 200])
def test_no_table_is_wider_than_its_terminal(
    shell: Shell,
    terminal: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
) -> None:
    """What matters least is cut, then left out. The outcome never is."""

    @job(crontab("0,10,20,30,40,50 8-18 * * 1-5", tz="America/Argentina/Buenos_Aires"))
    async def talk() -> str:
        return "a note of the greatest length " * 10

    shell("run talk", talk)
    terminal(columns)
    monkeypatch.setenv("NO_COLOR", "1")
    for command in ("list", "history talk"):
        lines = shell(command, talk).lines[:2]
        assert max(map(len, lines)) <= columns
        assert "  ok" in lines[1]


@on_sqlite
@pytest.mark.parametrize(
    ("columns", "schedule", "due_at", "note"),
    [
        (130, "crontab('0 8-18 * * 1-5', tz='Europe/Madrid')", "07:00:00", "x" * 28),
        (120, "crontab('0 8-18 * * 1-5', tz='Europe/Madrid')", "07:00:00", "x" * 20 + "…"),
        (100, "crontab('0 8-18 * * 1-5', tz=…", "07:00:00", "x" * 15 + "…"),
        (80, "crontab('0 8-18 * *…", None, "x" * 15 + "…"),
        (65, "crontab('0 8-18 * * 1-…", None, None),
        (45, None, None, None),
    ],
)
def test_what_matters_least_goes_first(
    shell: Shell,
    terminal: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
    schedule: str | None,
    due_at: str | None,
    note: str | None,
) -> None:
    """The note is cut, then the schedule; then the time is left out, the note, the schedule."""

    @job(crontab("0 8-18 * * 1-5", tz="Europe/Madrid"))
    async def talk() -> str:
        return "x" * 28

    shell("run talk", talk)
    terminal(columns)
    monkeypatch.setenv("NO_COLOR", "1")
    head, row = (re.split(" {2,}", line) for line in shell("list", talk).lines[:2])
    shown = dict(zip(head, row, strict=True))
    assert [shown.get(each) for each in ("SCHEDULE", "UTC", "NOTE")] == [schedule, due_at, note]


@on_sqlite
def test_a_file_gets_whole_lines(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no terminal shows them, nothing is cut."""

    @job(every(minutes=5))
    async def talk() -> str:
        return "x" * 500

    monkeypatch.setenv("COLUMNS", "80")
    shell("run talk", talk)
    assert shell("list", talk).second.endswith("  " + "x" * 500)


# next


def test_next_with_a_seed_shows_when_jobs_will_run(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the microsecond: from before any process has started on."""

    @job(every(minutes=5), name="tick")
    async def jittered() -> None: ...

    async def serve() -> None:
        settings = shell.settings.model_copy(update={"cron_seed": "7"})
        with FakeClock(START) as clock:
            async with running(create_app(settings, jobs=[jittered], clock=clock), clock):
                await clock.advance(minutes=30)

    monkeypatch.setenv("CRON_SEED", "7")
    times = shell("next tick -n 5 --json", jittered).json
    assert [due["run_no"] for due in times] == [1, 2, 3, 4, 5]
    assert [due["latest"] for due in times] == [due["earliest"] for due in times]
    asyncio.run(serve())
    runs = shell("history tick --json", jittered).json
    assert [run["started_at"] for run in runs[:5]] == [due["earliest"] for due in times]


def test_next_without_a_seed_shows_what_chance_can_do(shell: Shell) -> None:
    """The first due time is known; after it each gap is 0.7 to 1.3 times the interval."""

    @job(every(minutes=10), name="tick")
    async def jittered() -> None: ...

    shell("run tick", jittered)
    shell.change("next_run_at = 1767226200000000")  # 00:10
    assert shell("next tick -n 3", jittered).lines == [
        "RUN  EARLIEST (UTC)       LATEST (UTC)         FROM NOW",
        "  2  2026-01-01 00:10:00  2026-01-01 00:10:00  in 10 min",
        "  3  2026-01-01 00:17:00  2026-01-01 00:23:00  in 17 min",
        "  4  2026-01-01 00:24:00  2026-01-01 00:36:00  in 24 min",
    ]


def test_next_shows_a_crontab_and_its_splay(shell: Shell) -> None:
    """From each fire to the fire plus the splay, also for one that no process has started yet."""

    @job(crontab("0 3 * * *", splay=timedelta(minutes=5)))
    async def report() -> None: ...

    assert shell("next report -n 2", report).lines[1:] == [
        "  1  2026-01-01 03:00:00  2026-01-01 03:05:00  in 3 h",
        "  2  2026-01-02 03:00:00  2026-01-02 03:05:00  in 1 d 3 h",
    ]


def test_next_counts_from_now_where_a_run_is_overdue(shell: Shell) -> None:
    """Then it will run soon, and the others after it."""
    shell("run tick", tick)
    shell.wait(hours=1)
    assert [due["earliest"][11:19] for due in shell("next tick -n 3 --json", tick).json] == [
        "00:05:00",
        "01:05:00",
        "01:10:00",
    ]
    assert shell("next tick", tick).second.endswith("  now")


def test_next_begins_with_a_request(shell: Shell) -> None:
    """It is due when it was asked for."""
    shell("run tick", tick)
    shell.change("requested_at = 1767225660000000")  # 00:01
    assert shell("next tick -n 1 --json", tick).json[0]["earliest"] == "2026-01-01T00:01:00+00:00"


def test_next_tells_that_a_job_is_paused(shell: Shell) -> None:
    """Then it runs at none of these."""
    shell.make_database()
    shell("pause tick", tick)
    line = "tick is paused: until `resume` it runs only when it is asked to"
    assert shell("next tick", tick).lines[-1] == line
    assert shell("next tick --json -n 1", tick).json


def test_next_shows_ten_unless_it_is_told_otherwise(shell: Shell) -> None:
    """At most a thousand."""
    assert len(shell("next tick --json", tick).json) == 10
    assert len(shell("next tick --json -n 1000", tick).json) == 1000


def test_next_ends_where_the_calendar_does(shell: Shell) -> None:
    """No due time lies after the year 9999."""

    @job(every(days=3660))
    async def rare() -> None: ...

    assert len(shell("next rare -n 1000 --json", rare).json) < 1000


def test_to_look_changes_nothing(shell: Shell) -> None:
    """No row is made: the first process to start decides when a new job is due."""
    for command in ("list", "next tick", "history tick"):
        assert shell(command, tick).code == 0
    assert shell.query("SELECT * FROM cron_job") == []


@pytest.mark.parametrize("command", ["list", "next tick", "history tick"])
def test_to_look_waits_for_no_writer(shell: Shell, command: str) -> None:
    """Another program may hold the database for as long as it likes."""
    shell("run tick", tick)
    with locked(shell.settings):
        assert shell(command, tick).code == 0


# history


def test_history_shows_each_run(shell: Shell) -> None:
    """The last one at the end: how late it began, how long it took, how it ended, and where."""
    shell.claim_elsewhere(end=True)
    shell.wait(minutes=5, seconds=3)
    shell.claim_elsewhere()
    shell.wait(seconds=12)
    assert shell("history tick", tick).lines == [
        "RUN  STARTED (UTC)        LATE   TOOK   OUTCOME  PROCESS",
        "  1  2026-01-01 00:00:00  0.0 s  0.0 s  ok       rival",
        "  2  2026-01-01 00:05:03  3.0 s  12 s   running  rival",
    ]
    shell.wait(minutes=1)
    row = "  2  2026-01-01 00:05:03  3.0 s         abandoned  rival"
    assert shell("history tick", tick).lines[-1] == row


def test_history_shows_errors(shell: Shell) -> None:
    """In the place of a note."""
    shell("run fail", fail)
    assert shell("history fail", fail).second.endswith("  ValueError: the reason")


def test_history_is_json_for_programs(shell: Shell) -> None:
    """Times are ISO 8601, in UTC. What is not known is null, and so is what has not come yet."""
    shell("run fail", fail)
    shell.claim_elsewhere("fail")
    first, second = shell("history fail --json", fail).json
    owner, finished_at = first.pop("owner"), datetime.fromisoformat(first.pop("finished_at"))
    assert first == {
        "run_no": 1,
        "due_at": "2026-01-01T00:00:00+00:00",
        "started_at": "2026-01-01T00:00:00+00:00",
        "outcome": "error",
        "note": "",
        "error": "ValueError: the reason",
    }
    assert START < finished_at < START + timedelta(minutes=1)  # a run takes real time
    assert f"-{os.getpid()}-" in owner
    assert (second["outcome"], second["finished_at"], second["owner"]) == (None, None, "rival")


def test_history_of_a_job_that_has_not_run(shell: Shell) -> None:
    """It says so; to a program, it is empty."""
    assert shell("history tick", tick) == Answer(0, ["tick has not run yet"], [])
    assert shell("history tick --json", tick).json == []


def test_history_of_a_job_that_this_code_does_not_have(shell: Shell) -> None:
    """It is there until it is forgotten."""
    shell("run tick", tick)
    assert shell("history tick").second.endswith("  gone: 3")


# run


def test_run_runs_a_job_that_is_not_due(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here, whatever CRON_ENABLED says. Its next run is due an interval after this start."""
    monkeypatch.setenv("CRON_ENABLED", "false")
    shell("run tick", tick)
    shell.wait(minutes=1)
    answer = shell("run tick", tick)
    assert (answer.code, answer.errors) == (0, [])
    assert re.fullmatch(r"tick run 2: ok, gone: 3, after \d+\.\d s", answer.first)
    assert "  in 5 min  00:06:00  " in shell("list", tick).second


def test_run_says_how_long_it_took(shell: Shell) -> None:
    """From the claim to its record."""

    @job(every(minutes=5))
    async def wait(ctx: JobContext) -> None:
        await ctx.clock.sleep(0.3)

    [line] = shell("run wait", wait).lines
    assert float(line.removeprefix("wait run 1: ok, after ").removesuffix(" s")) >= 0.3


def test_run_fails_as_the_job_does(shell: Shell) -> None:
    """Exit code 1, and its error."""
    answer = shell("run fail", fail)
    assert answer.code == 1
    assert answer.first.startswith("fail run 1: error, ValueError: the reason, after ")


def test_run_fails_when_time_is_over(shell: Shell) -> None:
    """Any outcome but ok is a failure."""

    @job(every(minutes=5), timeout=timedelta(milliseconds=1))
    async def hang() -> None:
        await asyncio.Event().wait()

    answer = shell("run hang", hang)
    assert answer.code == 1
    assert answer.first.startswith("hang run 1: timeout, TimeoutError: ")


def test_run_runs_a_paused_job(shell: Shell) -> None:
    """It is asked to. It stays paused."""
    shell.make_database()
    shell("pause tick", tick)
    assert shell("run tick", tick).code == 0
    assert "paused" in shell("list", tick).second


def test_run_starts_nothing_else(shell: Shell) -> None:
    """Other jobs are as due as before, and each_process ones are for servers."""
    ran: list[str] = []

    @job(every(minutes=5, jitter=0))
    async def other() -> None:
        ran.append("other")

    @job(every(minutes=5, jitter=0), each_process=True)
    async def own() -> None:
        ran.append("own")

    @job(every(minutes=5, jitter=0))
    async def wait(ctx: JobContext) -> None:
        await ctx.clock.sleep(0.2)

    assert shell("run wait", wait, other, own).code == 0
    assert ran == []


def test_run_gives_way_to_a_run_elsewhere(shell: Shell) -> None:
    """Exit code 75, in which process it is, and nothing is left behind: no request, no run."""
    shell.claim_elsewhere()
    shell("pause tick", tick)
    before = shell.contents()
    line = "tick is running elsewhere, in rival"
    assert shell("run tick", tick) == Answer(75, [], [line])
    assert shell.contents() == before


def test_run_gives_way_to_who_was_quicker(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may claim the job between this one's look at it and its claim."""
    claim = SqlStore.claim

    async def claim_too_late(store: SqlStore, claims: list[Claim], *, wait: bool) -> object:
        monkeypatch.setattr(SqlStore, "claim", claim)
        await asyncio.to_thread(shell.claim_elsewhere, end=True)
        shell.query("UPDATE cron_run SET started_at = started_at - 60000000")  # it took a minute
        return await claim(store, claims, wait=wait)

    monkeypatch.setattr(SqlStore, "claim", claim_too_late)
    line = "tick has just run elsewhere, in rival: ok, 0.0 s ago"
    assert shell("run tick", tick) == Answer(75, [], [line])


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"]
)
@pytest.mark.parametrize("command", ["run stop", "run-due"])
def test_a_signal_ends_a_run_as_a_shutdown_does(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int, command: str
) -> None:
    """It is asked to stop, after the grace cancelled, and interrupted: due at once."""

    @job(every(minutes=5, jitter=0))
    async def stop(ctx: JobContext) -> None:
        os.kill(os.getpid(), number)
        await ctx.clock.sleep(60)

    monkeypatch.setenv("CRON_GRACE_SECONDS", "0.1")
    assert shell(command, stop).code == code
    [run] = shell("history stop --json", stop).json
    assert run["outcome"] == "interrupted"
    assert shell("list", stop).second.split()[2] == "now"


def test_ctrl_c_before_it_has_begun_ends_it(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a traceback, as later."""

    def read_settings() -> Settings:
        raise KeyboardInterrupt

    monkeypatch.setattr("app.cron.__main__.read_settings", read_settings)
    assert shell("list") == Answer(130, [], [])


async def test_a_cancel_that_is_no_signal_is_passed_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has cancelled it waits for that."""

    async def wait(commands: Commands, arguments: object) -> int:
        return await asyncio.Future()

    monkeypatch.setattr(Commands, "list", wait)
    commands = Commands(settings, [tick], WallClock())
    command = asyncio.create_task(commands.do(read_arguments(["list"])))
    await asyncio.sleep(0)
    command.cancel()
    with pytest.raises(asyncio.CancelledError):
        await command


def test_a_signal_during_the_claim_leaves_no_claim_behind(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been decided by then: its run is interrupted, and due for others at once."""
    claim = SqlStore.claim

    async def claim_slowly(store: SqlStore, claims: list[Claim], *, wait: bool) -> object:
        claimed = await claim(store, claims, wait=wait)
        os.kill(os.getpid(), signal.SIGTERM)
        await SystemClock().sleep(0.1)
        return claimed

    @job(every(minutes=5, jitter=0), name="tick")
    async def wait(ctx: JobContext) -> None:
        await ctx.clock.sleep(60)

    monkeypatch.setattr(SqlStore, "claim", claim_slowly)
    monkeypatch.setenv("CRON_GRACE_SECONDS", "0")
    assert shell("run tick", wait).code == 143
    assert [run["outcome"] for run in shell("history tick --json", tick).json] == ["interrupted"]
    assert shell("list", tick).second.split()[2] == "now"


def test_a_run_may_end_in_the_grace(shell: Shell) -> None:
    """It is ok then, however often it is told to end; the exit code tells of the first signal."""

    @job(every(minutes=5, jitter=0))
    async def stop(ctx: JobContext) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
            await ctx.clock.sleep(0.05)

    assert shell("run stop", stop).code == 143
    assert shell("history stop --json", stop).json[0]["outcome"] == "ok"


# run-due


def test_run_due_runs_a_new_job_by_its_row(shell: Shell) -> None:
    """An `every` job soon after it is known, a crontab at its first fire."""
    answer = shell("run-due", tick, nightly)
    assert (answer.code, answer.errors) == (0, [])
    assert answer.first == "nightly is not due: next run in 3 h"
    assert answer.second.startswith("tick run 1: ok, gone: 3, after ")
    shell.wait(hours=3)
    assert len(shell("history nightly --json", nightly).json) == 0
    assert shell("run-due nightly", tick, nightly).first.startswith("nightly run 1: ok")


def test_run_due_runs_what_has_waited_for_its_shortest_gap(shell: Shell) -> None:
    """0.7 times the interval after the last start, whatever due time was drawn."""

    @job(every(minutes=5), name="tick")
    async def jittered() -> None: ...

    shell("run tick", jittered)
    shell.change("next_run_at = next_run_at + 60000000")
    shell.wait(minutes=3, seconds=29)
    assert shell("run-due", jittered).first.startswith("tick is not due: next run in ")
    shell.wait(seconds=1)
    assert shell("run-due", jittered).first.startswith("tick run 2: ok")
    assert shell("run-due", jittered).first.startswith("tick is not due: next run in ")


def test_run_due_runs_a_crontab_once_a_fire(shell: Shell) -> None:
    """As soon as there was one since its last start, whatever its splay."""

    @job(crontab("0 3 * * *", splay=timedelta(hours=1)))
    async def report() -> None: ...

    shell("run report", report)
    shell.move_to(START + timedelta(hours=3))
    shell.change("next_run_at = 1767238200000000")  # 03:30
    assert shell("run-due", report).first.startswith("report run 2: ok")
    shell.wait(minutes=40)
    assert shell("run-due", report).first.startswith("report is not due: next run in ")


def test_run_due_lets_a_paused_job_rest(shell: Shell) -> None:
    """However long it has waited."""
    shell("run tick", tick)
    shell("pause tick", tick)
    shell.wait(hours=1)
    assert shell("run-due", tick) == Answer(0, ["tick is not due: it is paused"], [])


@pytest.mark.parametrize("change", ["requested_at = 1", "requested_at = 1, paused = TRUE"])
def test_run_due_honours_a_request(shell: Shell, change: str) -> None:
    """Also one for a paused job, and before its gap is over. It is honoured once."""
    shell("run tick", tick)
    shell.change(change)
    assert shell("run-due", tick).first.startswith("tick run 2: ok")
    assert shell("run-due", tick).first.startswith("tick is not due: ")


def test_run_due_knows_what_is_too_late(shell: Shell) -> None:
    """With `max_late`, what was due long ago is missed. That is no failure."""
    ran: list[int] = []

    @job(every(hours=1, jitter=0), max_late=timedelta(minutes=10))
    async def punctual(ctx: JobContext) -> None:
        ran.append(ctx.run_no)

    shell("run punctual", punctual)
    shell.wait(hours=2)
    answer = shell("run-due", punctual)
    assert (answer.code, ran) == (0, [1])
    assert answer.first.startswith("punctual run 2: missed, 1 h late, and max_late is 10 min")


def test_run_due_fails_if_a_job_does(shell: Shell) -> None:
    """And runs the others."""
    answer = shell("run-due", fail, tick)
    assert answer.code == 1
    assert sorted(line[:15] for line in answer.lines) == ["fail run 1: err", "tick run 1: ok,"]


def test_run_due_runs_the_named_jobs_only(shell: Shell) -> None:
    """Each once, however often it is named. Without names: all that processes share."""

    @job(every(minutes=5, jitter=0))
    async def other() -> None: ...

    answer = shell("run-due tick tick", tick, other, warm_up)
    assert [line[:10] for line in answer.lines] == ["tick run 1"]
    answer = shell("run-due", tick, other, warm_up)
    assert [line[:11] for line in sorted(answer.lines)] == ["other run 1", "tick is not"]


def test_run_due_says_what_runs_elsewhere(shell: Shell) -> None:
    """That is no failure: another process does the work."""
    shell("run tick", tick)
    shell.wait(minutes=10)
    shell.claim_elsewhere()
    shell.change("next_run_at = 0")
    assert shell("run-due", tick) == Answer(0, ["tick is running elsewhere, in rival"], [])


@pytest.mark.parametrize("statement", ["UPDATE cron_job SET paused = TRUE", "DELETE FROM cron_job"])
def test_run_due_tells_what_was_changed_meanwhile(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    """What is paused or forgotten after this one has seen it due does not run, here or there."""
    claim = SqlStore.claim

    async def claim_too_late(store: SqlStore, claims: list[Claim], *, wait: bool) -> object:
        await asyncio.to_thread(shell.query, statement)
        return await claim(store, claims, wait=wait)

    shell("run tick", tick)
    shell.wait(minutes=5)
    monkeypatch.setattr(SqlStore, "claim", claim_too_late)
    assert shell("run-due", tick) == Answer(0, ["tick has just been changed elsewhere"], [])


@pytest.mark.parametrize("change", ["next_run_at = 0", "next_run_at = next_run_at + 3600000000"])
def test_run_due_runs_nothing_twice(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """What another process claims after this one has seen it due, by its row or by its gap, has
    had its run, even if that is over by now."""
    jobs = Records.jobs

    async def look_early(records: Records) -> list[JobRecord]:
        monkeypatch.setattr(Records, "jobs", jobs)
        known = await jobs(records)
        await asyncio.to_thread(shell.claim_elsewhere, end=True)
        return known

    shell("run tick", tick)
    shell.wait(minutes=5)
    shell.change(change)
    monkeypatch.setattr(Records, "jobs", look_early)
    line = "tick has just run elsewhere, in rival: ok, 0.0 s ago"
    assert shell("run-due", tick) == Answer(0, [line], [])
    assert [run["owner"] == "rival" for run in shell("history tick --json", tick).json] == [
        False,
        True,
    ]


def test_run_due_runs_jobs_side_by_side(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """None waits for the end of another, nor for a thread that it does not need."""
    monkeypatch.setenv("CRON_THREADS", "1")
    begun = {"one": asyncio.Event(), "two": asyncio.Event()}

    @job(every(minutes=5, jitter=0))
    async def one() -> None:
        begun["one"].set()
        await begun["two"].wait()

    @job(every(minutes=5, jitter=0))
    async def two() -> None:
        begun["two"].set()
        await begun["one"].wait()

    assert shell("run-due", one, two).code == 0


def test_run_due_claims_no_job_before_there_is_a_thread(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its timeout would begin, and other processes could not run it."""
    under_way: list[int] = []

    def count() -> None:
        query = "SELECT count(*) FROM cron_run WHERE outcome IS NULL"
        under_way.extend(count for (count,) in shell.query(query))

    @job(every(minutes=5, jitter=0))
    def one() -> None:
        count()

    @job(every(minutes=5, jitter=0))
    def two() -> None:
        count()

    monkeypatch.setenv("CRON_THREADS", "1")
    assert shell("run-due", one, two).code == 0
    assert under_way == [1, 1]


def test_run_due_of_no_jobs_is_done(shell: Shell) -> None:
    """A service may have none left."""
    assert shell("run-due") == Answer(0, [], [])


async def test_run_due_goes_on_though_nobody_reads_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All runs end, and only then it fails for that."""
    ended = list[tuple[str, str]]()

    def tell(finish: Finish, took: timedelta) -> None:
        ended.append((finish.name, finish.outcome))
        raise BrokenPipeError

    monkeypatch.setattr("app.cron.screen.show_end", tell)
    impatient = settings.model_copy(update={"cron_grace_seconds": 0})
    commands = Commands(impatient, [tick, last], WallClock())
    with pytest.raises(BrokenPipeError):
        await commands.do(read_arguments(["run-due"]))
    assert sorted(ended) == [("last", "ok"), ("tick", "ok")]


def test_a_run_without_a_note_is_told_without_one(shell: Shell) -> None:
    """Nor is there a comma too much."""

    @job(every(minutes=5))
    async def silent() -> None: ...

    assert re.fullmatch(r"silent run 1: ok, after \d+\.\d s", shell("run silent", silent).first)


def test_json_is_for_people_too(shell: Shell) -> None:
    """One value to a line."""
    shell("run tick", tick)
    answer = shell("history tick --json", tick)
    assert answer.lines == json.dumps(answer.json, indent=2).splitlines()


def test_run_due_goes_on_where_one_claim_fails(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1, and the others run to their end."""
    run = Scheduler.run

    async def refuse_one(scheduler: Scheduler, name: str, **options: Any) -> object:
        if name == "fail":
            raise StoreUnavailable("the disk is full")
        return await run(scheduler, name, **options)

    monkeypatch.setattr(Scheduler, "run", refuse_one)
    answer = shell("run-due", fail, tick)
    assert (answer.code, answer.errors) == (1, ["the database cannot be used: the disk is full"])
    assert [line[:14] for line in answer.lines] == ["tick run 1: ok"]


@on_sqlite
def test_run_due_goes_on_where_one_row_is_refused(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the database, for a reason that is no outage: that fails, and is logged; others run on."""
    monkeypatch.setenv("CRON_GRACE_SECONDS", "0")
    shell.make_database()
    shell.query(
        "CREATE TRIGGER refuse BEFORE UPDATE ON cron_job WHEN NEW.name = 'tick' "
        "BEGIN SELECT RAISE(ABORT, 'not this one'); END"
    )
    answer = shell("run-due", tick, last)
    assert (answer.code, answer.errors) == (1, [])
    assert [line[:14] for line in answer.lines] == ["last run 1: ok"]
    [error] = [json.loads(line) for line in answer.log if "ERROR" in line]
    assert (error["job"], error["message"]) == ("tick", "cron: run-due has failed with tick")
    assert "IntegrityError: not this one" in error["traceback"]


def test_run_due_goes_on_where_one_schedule_fails(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of the service's own can, before there is a claim."""

    class Broken(Every):
        def next(self, after: datetime, random: Random) -> datetime:
            raise ArithmeticError("no gap")

    @job(Broken({"minutes": 5}, 0))
    async def broken() -> None: ...

    monkeypatch.setenv("CRON_GRACE_SECONDS", "0")
    shell.claim_elsewhere("broken", end=True)
    answer = shell("run-due", broken, last)
    assert (answer.code, answer.errors) == (1, [])
    assert [line[:14] for line in answer.lines] == ["last run 1: ok"]
    [error] = [json.loads(line) for line in answer.log if "ERROR" in line]
    assert error["job"] == "broken"
    assert "ArithmeticError: no gap" in error["traceback"]


# pause, resume, forget


def test_pause_and_resume_say_what_is_so_now(shell: Shell) -> None:
    """Also of a job that no process has started yet, and if it was so before."""
    shell.make_database()
    paused = ["tick is paused: until `resume` it runs only when it is asked to"]
    assert shell("pause tick", tick) == Answer(0, paused, [])
    assert shell("pause tick", tick) == Answer(0, paused, [])
    assert shell("resume tick", tick) == Answer(0, ["tick is not paused: due now"], [])
    shell("run tick", tick)
    assert shell("resume tick", tick) == Answer(0, ["tick is not paused: due in 5 min"], [])


def test_a_paused_job_does_not_run_when_the_app_starts(shell: Shell) -> None:
    """Though it was paused before there was any process, and until it is resumed."""

    async def serve() -> None:
        with FakeClock(START) as clock:
            async with running(create_app(shell.settings, jobs=[tick], clock=clock), clock):
                await clock.advance(minutes=1)

    shell.make_database()
    shell("pause tick", tick)
    asyncio.run(serve())
    assert shell("history tick --json", tick).json == []
    shell("resume tick", tick)
    asyncio.run(serve())
    assert len(shell("history tick --json", tick).json) == 1


def test_a_new_job_that_is_paused_is_due_as_ever(shell: Shell) -> None:
    """A crontab waits for its first fire."""
    shell.make_database()
    shell("pause nightly", nightly)
    assert shell("resume nightly", nightly).lines == ["nightly is not paused: due in 3 h"]


def test_a_job_that_this_code_does_not_have_can_be_paused(shell: Shell) -> None:
    """Other code may have it."""
    shell("run tick", tick)
    assert shell("pause tick").code == 0
    assert shell.query("SELECT paused FROM cron_job") == [(1,)]
    assert shell("resume tick").code == 0
    assert shell.query("SELECT paused FROM cron_job") == [(0,)]


def test_forget_deletes_a_job_and_its_history(shell: Shell) -> None:
    """One that this code does not have is gone, and no other."""
    shell("run tick", tick)
    shell("run fail", fail)
    assert shell("forget tick", fail) == Answer(0, ["tick is forgotten"], [])
    assert shell.query("SELECT name FROM cron_job") == [("fail",)]
    assert shell.query("SELECT name FROM cron_run") == [("fail",)]
    assert shell("history tick", fail).code == 2


def test_forget_makes_a_job_of_this_code_new(shell: Shell) -> None:
    """Its next run is its first. One that was never known can be forgotten, too."""
    shell.make_database()
    for _ in range(2):
        answer = shell("forget tick", tick)
        assert answer == Answer(0, ["tick is forgotten, to this code it is new"], [])
        assert shell("run tick", tick).first.startswith("tick run 1: ok")


def test_forget_waits_for_the_end_of_a_run(shell: Shell) -> None:
    """Exit code 75, and nothing is deleted."""
    shell.claim_elsewhere()
    before = shell.contents()
    line = "tick is running elsewhere, in rival: not forgotten"
    assert shell("forget tick") == Answer(75, [], [line])
    assert shell.contents() == before


def test_a_run_that_ends_while_it_is_forgotten_is_told(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was under way a moment before: to forget it now is for another command."""

    async def forget(store: SqlStore, name: str) -> bool:
        return False

    shell.claim_elsewhere(end=True)
    monkeypatch.setattr(SqlStore, "forget", forget)
    line = "tick has just run elsewhere, in rival: ok, 0.0 s ago: not forgotten"
    assert shell("forget tick") == Answer(75, [], [line])


# What is refused


@pytest.mark.parametrize("command", ["pause", "resume", "forget"])
def test_to_steer_needs_the_database_of_a_service(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    """Where DATABASE_URL is missing, a new one would be steered, and the service run on."""
    monkeypatch.delenv("DATABASE_URL")
    line = f"no database at {tmp_path / 'data/app.db'}: is DATABASE_URL set as for the service?"
    assert shell(f"{command} tick", tick) == Answer(2, [], [line])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["list", "pause tick"])
def test_a_path_that_cannot_be_looked_at_is_told_in_a_line(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Whether that is seen before it is opened differs from one Python to another."""
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{'x' * 300}")
    answer = shell(command, tick)
    assert (answer.code in (1, 2), answer.lines) == (True, [])
    [error] = answer.errors
    assert "x" * 300 in error


@pytest.mark.parametrize(
    "command", ["next", "history", "run", "run-due", "pause", "resume", "forget"]
)
def test_a_job_of_each_process_is_out_of_reach(shell: Shell, command: str) -> None:
    """What is kept of it is in the memory of others."""
    shell.make_database()
    line = "warm_up is run by each process for itself: the shell cannot reach it"
    assert shell(f"{command} warm_up", tick, warm_up) == Answer(2, [], [line])


@pytest.mark.parametrize(
    "command", ["next", "history", "run", "run-due", "run-due tick", "pause", "resume", "forget"]
)
def test_an_unknown_job_is_refused_with_the_nearest_name(shell: Shell, command: str) -> None:
    """And nothing else is done."""
    shell.make_database()
    line = "no job 'tikc': did you mean 'tick'?"
    assert shell(f"{command} tikc", tick, nightly) == Answer(2, [], [line])


def test_a_name_that_is_near_to_none_is_refused(shell: Shell) -> None:
    """With a hint at where the names are."""
    line = "no job 'x': `list` shows what there is"
    assert shell("run x", tick, nightly) == Answer(2, [], [line])


@pytest.mark.parametrize("command", ["history", "pause", "resume", "forget"])
def test_the_nearest_name_may_be_one_of_the_database(shell: Shell, command: str) -> None:
    """What this code does not have can be seen and forgotten."""
    shell("run tick", tick)
    assert shell(f"{command} tikc").errors == ["no job 'tikc': did you mean 'tick'?"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("", "the following arguments are required: COMMAND; see python -m app.cron --help"),
        ("pause", "the following arguments are required: NAME; see python -m app.cron pause "),
        ("lst", "argument COMMAND: invalid choice: 'lst' (choose from "),
        ("run tick fail", "unrecognized arguments: fail; see python -m app.cron --help"),
        ("run tick --json", "unrecognized arguments: --json; see python -m app.cron --help"),
        ("next tick -n 0", "argument -n: '0' is not a number from 1 to 1000; see "),
        ("next tick -n -1", "argument -n: '-1' is not a number from 1 to 1000; see "),
        ("next tick -n 1001", "argument -n: '1001' is not a number from 1 to 1000; see "),
        ("next tick -n ten", "argument -n: 'ten' is not a number from 1 to 1000; see "),
    ],
)
def test_wrong_arguments_are_refused_in_a_line(shell: Shell, words: str, line: str) -> None:
    """It says which, and where help is."""
    answer = shell(words, tick, fail)
    assert (answer.code, answer.lines) == (2, [])
    [error] = answer.errors
    assert error.startswith(line)


@pytest.mark.parametrize("command", ["list", "run tick", "run-due"])
def test_a_wrong_setting_is_refused_in_a_line(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """It names the variable."""
    monkeypatch.setenv("CRON_THREADS", "zero")
    answer = shell(command, tick)
    assert (answer.code, answer.lines) == (2, [])
    [error] = answer.errors
    assert error.startswith("CRON_THREADS='zero': ")


@pytest.mark.parametrize("command", ["list", "run tick"])
def test_a_job_that_cannot_work_is_refused_in_a_line(shell: Shell, command: str) -> None:
    """Whether its declaration is wrong or, which shows later, a parameter."""

    @job(every(minutes=5, jitter=30), name="tick")
    async def hasty() -> None: ...

    @job(every(minutes=5), name="tick")
    async def curious(q: str) -> None: ...

    answer = shell(command, hasty)
    assert (answer.code, answer.lines) == (2, [])
    assert answer.errors[0].startswith("job 'tick': jitter=30: jitter is a fraction")
    if command == "run tick":
        line = "job 'tick': a job has no request to read 'q' from"
        assert shell(command, curious) == Answer(2, [], [line])


@on_sqlite
@pytest.mark.parametrize("command", ["list", "history tick", "run tick", "run-due", "pause tick"])
def test_a_database_that_cannot_be_used_is_told_in_a_line(shell: Shell, command: str) -> None:
    """Exit code 1: it is not the fault of who asks."""
    path = path_of(shell.settings)
    path.write_text("no database " * 1_000)
    line = f"the database cannot be used: {path}: file is not a database"
    assert shell(command, tick) == Answer(1, [], [line])


@pytest.mark.parametrize("command", ["run tick", "run-due", "pause tick"])
def test_a_database_that_goes_away_is_told_in_a_line(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Not only at the start, and nothing runs without it."""

    async def refuse(store: SqlStore, jobs: object) -> None:
        raise StoreUnavailable("the disk is full")

    shell.make_database()
    monkeypatch.setattr(SqlStore, "register", refuse)
    answer = shell(command, tick)
    assert (answer.code, answer.lines) == (1, [])
    [error] = answer.errors
    assert error.startswith("the database cannot be used: the d")
    assert error.endswith("the disk is full")


def test_the_output_need_not_be_a_file(shell: Shell) -> None:
    """Another program may call it, and read what it prints."""
    output = StringIO()
    with redirect_stdout(output):
        assert shell("list", tick).code == 0
    assert "tick" in output.getvalue()


def test_what_a_look_has_to_log_is_logged_as_by_the_service(shell: Shell) -> None:
    """Also where it runs nothing, and so makes no app."""
    shell.query("CREATE TABLE alembic_version (version_num VARCHAR(32))")
    shell.query("INSERT INTO alembic_version VALUES ('f00d')")
    [line] = shell("list", tick).log
    assert json.loads(line)["level"] == "WARNING"


HELP = """\
usage: python -m app.cron [-h] COMMAND ...

Look at the recurring jobs, run them, steer them.

positional arguments:
  COMMAND
    list      show the jobs, and the processes that are alive
    next      show when a job is due: with CRON_SEED exactly, else from when to when
    history   show the remembered runs of a job, the last one at the end
    run       run a job here and now, whether it is due or not, even if it is paused
    run-due   run the jobs that have waited for their shortest gap: for a timer outside
    pause     let a job not run until it is resumed, or asked to
    resume    let a paused job run again
    forget    delete what the database knows of a job

options:
  -h, --help  show this help message and exit

Exit codes: 0 done; 1 a run has failed, or the database cannot be used; 2 refused; 75 another
process runs the job, or was quicker; 130, 143 ended by Ctrl-C, by SIGTERM.
"""

HELP_OF_NEXT = """\
usage: python -m app.cron next [-h] [-n N] [--json] NAME

show when a job is due: with CRON_SEED exactly, else from when to when

positional arguments:
  NAME

options:
  -h, --help  show this help message and exit
  -n N        how many (default: 10)
  --json      for programs
"""

HELP_OF_RUN_DUE = """\
usage: python -m app.cron run-due [-h] [NAME ...]

run the jobs that have waited for their shortest gap: for a timer outside

positional arguments:
  NAME        default: all jobs

options:
  -h, --help  show this help message and exit
"""


@pytest.mark.parametrize(
    ("words", "text"),
    [("", HELP), ("next ", HELP_OF_NEXT), ("run-due ", HELP_OF_RUN_DUE)],
    ids=["all", "next", "run-due"],
)
def test_help_says_what_can_be_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: str, text: str
) -> None:
    """Each command and what it does, its arguments, and what the exit codes mean."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    for name in ("FORCE_COLOR", "PYTHON_COLORS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as end:
        main(f"{words}--help".split())
    assert end.value.code == 0
    assert capsys.readouterr().out == text
