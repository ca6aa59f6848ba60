"""The shell as a process: alone, beside others, and when it is told to end."""

import json
import os
import signal
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path

from sqlalchemy import URL

from app.cron.job import collect
from app.jobs import JOBS
from support import on_postgres, outside, query
from support.process import REAL_SECONDS_MAX, Command, Server, wait_until

# A service and its shell. One job is hardly ever due. The other says in a file that it has begun,
# and waits if it is told to.
TIDY = """
import asyncio
import os
import sys

from app.cron import crontab, every, job
from app.cron.__main__ import main
from app.main import create_app

@job(crontab("0 0 29 2 *"))
async def leap() -> None: ...

@job(every(hours=1, jitter=0))
async def tidy() -> str:
    with open("begun", "a") as file:
        file.write("tidy\\n")
    await asyncio.sleep(float(os.environ.get("TIDY_SECONDS", "0")))
    return "«año»"

def service():
    return create_app(jobs=[leap, tidy])

if __name__ == "__main__":
    # As PYTHONUNBUFFERED and PYTHONIOENCODING would have it.
    sys.stdout.reconfigure(line_buffering=True, encoding=os.environ.get("TIDY_ENCODING"))
    sys.exit(main(jobs=[leap, tidy]))
"""


class UnreadCommand(Command):
    """Who reads its standard output has left, long before it has begun to write."""

    def open_stdout(self, folder: Path) -> int:
        """A pipe without another end."""
        reader, writer = os.pipe()
        os.close(reader)
        return writer


def end(folder: Path, *words: str, **environment: str) -> tuple[int, str]:
    """The exit code and the output of a command."""
    with Command(folder, *words, **environment) as command:
        return command.end()


def test_it_lists_the_jobs_of_a_new_service(tmp_path: Path) -> None:
    """In an empty folder, where nothing has ever run."""
    with Command(tmp_path, "list") as command:
        code, output = command.end()
        assert (code, command.output) == (0, "")
    head, *rows = output.splitlines()[: 1 + len(JOBS)]
    assert head.split()[0] == "JOB"
    assert {row.split()[0] for row in rows} == {job.name for job in collect(JOBS)}
    assert (tmp_path / "data" / "app.db").exists()


def test_it_runs_a_job_of_the_service(tmp_path: Path) -> None:
    """With all that the job depends on. Its log goes to standard error."""
    with Command(tmp_path, "run", "expire_sessions") as command:
        code, output = command.end()
        assert (code, output[:42]) == (0, "expire_sessions run 1: ok, deleted 0, afte")
        assert "INFO expire_sessions run 1: ok, deleted 0; next in " in command.output


def test_sigterm_ends_a_run(tmp_path: Path) -> None:
    """As a timer outside stops it: after the grace the run is interrupted. Exit code 143."""
    (tmp_path / "service.py").write_text(TIDY)
    with Command(tmp_path, "run", "tidy", CRON_GRACE_SECONDS="0.1", TIDY_SECONDS="60") as command:
        wait_until((tmp_path / "begun").exists)
        command.popen.send_signal(signal.SIGTERM)
        assert command.end() == (143, "")
        assert "Traceback" not in command.output
    _, output = end(tmp_path, "history", "tidy", "--json")
    assert [run["outcome"] for run in json.loads(output)] == ["interrupted"]


def test_it_does_not_run_what_a_server_runs(tmp_path: Path, url: URL) -> None:
    """Exit code 75, and which process it is."""
    (tmp_path / "service.py").write_text(TIDY)
    database = url.render_as_string(hide_password=False)
    with Server(tmp_path, "service:service", TIDY_SECONDS="60", DATABASE_URL=database):
        wait_until((tmp_path / "begun").exists)
        with Command(tmp_path, "run", "tidy", DATABASE_URL=database) as command:
            assert command.end() == (75, "")
            assert "\ntidy is running elsewhere, in " in command.output
    assert (tmp_path / "begun").read_text() == "tidy\n"


def test_many_at_once_make_one_run(tmp_path: Path, url: URL) -> None:
    """Six timers that know nothing of each other, and a database that none has made yet."""
    (tmp_path / "service.py").write_text(TIDY)
    environment = {"TIDY_SECONDS": "0.2", "DATABASE_URL": url.render_as_string(hide_password=False)}
    with ExitStack() as stack:
        commands = [
            stack.enter_context(Command(tmp_path, "run-due", "tidy", **environment))
            for _ in range(6)
        ]
        ends = [command.end() for command in commands]
    assert (tmp_path / "begun").read_text() == "tidy\n"
    assert [code for code, _ in ends] == [0] * 6
    outputs = sorted(output for _, output in ends)
    assert outputs[-1].startswith("tidy run 1: ok, ")
    for output in outputs[:-1]:
        assert output.startswith(
            ("tidy is running elsewhere", "tidy has just run elsewhere", "tidy is not due: next ")
        )


@on_postgres
def test_it_waits_for_who_has_the_job_for_a_moment(tmp_path: Path, url: URL) -> None:
    """One who pauses it, or looks at it for the first time, does not run it: this command does."""
    (tmp_path / "service.py").write_text(TIDY)
    environment = {"DATABASE_URL": url.render_as_string(hide_password=False)}
    end(tmp_path, "run", "tidy", **environment)
    query(url, "UPDATE cron_job SET next_run_at = 0")
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with outside(url) as other, Command(tmp_path, "run-due", "tidy", **environment) as command:
        with other.execution_options(isolation_level="READ COMMITTED").begin():
            other.exec_driver_sql("SELECT name FROM cron_job FOR UPDATE")
            wait_until(lambda: query(url, waiting) != [] or command.popen.poll() is not None)
        code, output = command.end()
    assert (code, output[:16]) == (0, "tidy run 2: ok, ")


def test_it_logs_what_it_could_not_run(tmp_path: Path) -> None:
    """With the traceback, under the name of the job."""
    end(tmp_path, "run", "expire_sessions")
    with closing(sqlite3.connect(tmp_path / "data/app.db", isolation_level=None)) as database:
        database.execute("UPDATE cron_job SET next_run_at = 0")
        database.execute(
            "CREATE TRIGGER refuse BEFORE UPDATE ON cron_job WHEN NEW.name = 'expire_sessions' "
            "BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        )
    with Command(tmp_path, "run-due", "expire_sessions") as command:
        assert command.end() == (1, "")
        assert "ERROR cron: run-due has failed with expire_sessions\nTraceback" in command.output


def test_it_ends_when_nobody_reads_it(tmp_path: Path) -> None:
    """As after `| head`: without a word, and with the code of SIGPIPE."""
    with UnreadCommand(tmp_path, "list", PYTHONUNBUFFERED="") as command:
        assert command.popen.wait(REAL_SECONDS_MAX) == 141
        assert command.output == ""


def test_nobody_who_leaves_ends_a_run(tmp_path: Path) -> None:
    """What is printed of one job is not read any more: the others run to their end before that."""
    (tmp_path / "service.py").write_text(TIDY)
    environment = {"CRON_GRACE_SECONDS": "0", "TIDY_SECONDS": "0.1"}
    with UnreadCommand(tmp_path, "run-due", **environment) as command:
        assert command.popen.wait(REAL_SECONDS_MAX) == 141
        assert "Traceback" not in command.output
    _, output = end(tmp_path, "history", "tidy", "--json")
    assert [run["outcome"] for run in json.loads(output)] == ["ok"]


def test_a_note_may_have_letters_that_the_output_has_not(tmp_path: Path) -> None:
    """They are replaced."""
    (tmp_path / "service.py").write_text(TIDY)
    code, output = end(tmp_path, "run", "tidy", TIDY_ENCODING="ascii")
    assert (code, output[:27]) == (0, "tidy run 1: ok, ?a?o?, afte")
