"""The shell, `python -m app.cron`: a door beside `app/main.py`, in whose app it runs jobs."""

import asyncio
import os
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Collection, Sequence
from contextlib import asynccontextmanager, closing, nullcontext, suppress
from datetime import timedelta
from difflib import get_close_matches
from io import TextIOWrapper
from signal import SIGINT, SIGTERM

from app.db import open_database, upgrade_schema
from app.jobs import JOBS
from app.main import create_app
from app.ops.logs import set_up_logs
from app.settings import Settings, SettingsError, read_settings

from . import screen
from .clock import SystemClock, seeded
from .command_line import Refused, read_arguments
from .due import due_times, has_waited, is_due
from .job import Function, Job, JobError, collect
from .plan import Plan
from .records import JobRecord, Records, unavailable
from .scheduler import Scheduler
from .sql_store import SqlStore
from .store import Finish, StoreUnavailable
from .tables import STEPS, check_version

# Exit codes. 75 is "try again later" in sysexits.h, above 128 is how shells tell of a signal.
FAILED, REFUSED, ELSEWHERE, BY_SIGNAL = 1, 2, 75, 128

UNUSABLE = "the database cannot be used"


class Shell:
    """A method for each command, which gives the exit code, and what they work with."""

    def __init__(self, settings: Settings, functions: Sequence[Function]) -> None:
        self._settings = settings
        self._functions = functions
        self._jobs = {job.name: job for job in collect(functions)}
        self._clock = SystemClock()
        self._random = seeded(settings.cron_seed)

    async def do(self, arguments: Namespace) -> int:
        """Do what the arguments say. Ctrl-C, or SIGTERM from a timer outside, ends it in order."""
        command: Awaitable[int] = getattr(self, arguments.command.replace("-", "_"))(arguments)
        task, signals = asyncio.current_task(), list[int]()
        assert task is not None

        def stop(number: int) -> None:
            signals.append(number)
            task.cancel()

        with suppress(NotImplementedError):  # on Windows
            for number in (SIGINT, SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stop, number)
        try:
            return await command
        except asyncio.CancelledError:
            if not signals:
                raise
            return BY_SIGNAL + signals[0]

    async def list(self, arguments: Namespace) -> int:
        """The jobs of this code and of the database, and the processes that are alive."""
        async with self._store() as store:
            records, processes = await _by_name(store), await store.processes()
        if arguments.json:
            screen.show_list_as_json(self._jobs, records, processes)
        else:
            screen.show_list(self._jobs, records, processes, self._clock.now())
        return 0

    async def next(self, arguments: Namespace) -> int:
        """When the job is due. Without CRON_SEED chance is not known, only what it can do."""
        job = self._shared(arguments.name)
        async with self._store() as store:
            record = (await _by_name(store)).get(job.name)
        now = self._clock.now()
        random = None if self._settings.cron_seed is None else self._random
        times = due_times(job, record, now, random, arguments.n)
        if arguments.json:
            screen.show_as_json(times)
        else:
            screen.show_due_times(times, record, now)
        return 0

    async def history(self, arguments: Namespace) -> int:
        """The remembered runs, also of a job that this code does not have."""
        async with self._store() as store:
            self._check(arguments.name, await _by_name(store))
            runs = await store.history(arguments.name)
        if arguments.json:
            screen.show_as_json(runs)
        else:
            screen.show_history(arguments.name, runs, self._clock.now())
        return 0

    async def run(self, arguments: Namespace) -> int:
        """Claim the job, due or not, and run it."""
        job = self._shared(arguments.name)
        async with self._scheduler() as (scheduler, records):
            finish = await self._run(job, scheduler, forced=True)
            if finish is None:
                return _tell(screen.elsewhere(job.name, await _by_name(records)), ELSEWHERE)
        return 0 if finish.outcome == "ok" else FAILED

    async def run_due(self, arguments: Namespace) -> int:
        """Run what is due, or has waited for its shortest gap, each job by itself."""
        all_names = [job.name for job in self._jobs.values() if not job.each_process]
        jobs = [self._shared(name) for name in dict.fromkeys(arguments.names or all_names)]
        threads = asyncio.Semaphore(self._settings.cron_threads)
        async with self._scheduler() as (scheduler, records):
            known, now = await _by_name(records), self._clock.now()

            async def run(job: Job, record: JobRecord) -> int:
                due = is_due(record, now)
                if not due and not has_waited(job, record, now):
                    print(screen.not_due(record, now))
                    return 0
                async with threads if job.threaded else nullcontext():
                    try:  # of all who have seen this run_no, one gets the run
                        finish = await self._run(job, scheduler, not due, record.run_no)
                        if finish is None:
                            print(screen.elsewhere(job.name, await _by_name(records)))
                    except StoreUnavailable as error:
                        return _tell(f"{UNUSABLE}: {error}", FAILED)
                return 0 if finish is None or finish.outcome in ("ok", "missed") else FAILED

            runs = (run(job, known[job.name]) for job in jobs if job.name in known)
            return max(await asyncio.gather(*runs), default=0)

    async def pause(self, arguments: Namespace) -> int:
        """Let no run of the job begin but for a request."""
        async with self._store() as store:
            await self._register(arguments.name, store)
            await store.pause(arguments.name)
        print(screen.paused(arguments.name))
        return 0

    async def resume(self, arguments: Namespace) -> int:
        """Let runs of the job begin again."""
        async with self._store() as store:
            await self._register(arguments.name, store)
            await store.resume(arguments.name)
            record = (await _by_name(store))[arguments.name]
        print(f"{record.name} is not paused: due {screen.next_run(record, self._clock.now())}")
        return 0

    async def forget(self, arguments: Namespace) -> int:
        """Delete what is known of the job: above all of one that was renamed or removed."""
        name = arguments.name
        async with self._store() as store:
            self._check(name, await _by_name(store))
            if not await store.forget(name) and name in (known := await _by_name(store)):
                return _tell(f"{screen.elsewhere(name, known)}: not forgotten", ELSEWHERE)
        print(f"{name} is forgotten{', to this code it is new' if name in self._jobs else ''}")
        return 0

    @asynccontextmanager
    async def _store(self) -> AsyncIterator[SqlStore]:
        """What the database knows of the jobs. Nothing is started."""
        with unavailable(), closing(open_database(self._settings)) as database:
            if database.read_here(check_version) < max(STEPS):
                await upgrade_schema(database, self._clock)
            yield SqlStore(database, self._clock, owner="", lease=self._settings.lease)

    @asynccontextmanager
    async def _scheduler(self) -> AsyncIterator[tuple[Scheduler, Records]]:
        """The app as a server runs it, but that nothing in it starts by itself."""
        settings = self._settings.model_copy(update={"cron_enabled": False})
        with unavailable():
            try:
                app = create_app(settings, jobs=self._functions, clock=self._clock)
            except SystemExit as end:  # meant for a server, with what is wrong as its cause
                raise end.__cause__ or end from None
            async with app.router.lifespan_context(app) as state:
                assert state is not None
                if outage := state["scheduler"].outage():
                    raise StoreUnavailable(outage)
                yield state["scheduler"], Records(state["database"], self._clock)

    async def _run(
        self, job: Job, scheduler: Scheduler, forced: bool, run_no: int | None = None
    ) -> Finish | None:
        began = self._clock.monotonic()
        finish = await scheduler.run(job.name, forced=forced, run_no=run_no)
        if finish is not None:
            screen.show_end(finish, timedelta(seconds=self._clock.monotonic() - began))
        return finish

    async def _register(self, name: str, store: SqlStore) -> None:
        """Make the job's row where there is none, as a process does that starts."""
        self._check(name, await _by_name(store))
        if name in self._jobs:
            plan = Plan(self._jobs, clock=self._clock, random=self._random, coalesce=timedelta(0))
            await store.register([plan.registration(name)])

    def _shared(self, name: str) -> Job:
        """The job of this code that all processes share."""
        self._check(name)
        return self._jobs[name]

    def _check(self, name: str, known: Collection[str] = ()) -> None:
        """Refuse what is not a job of this code, nor known, or is beyond the shell's reach."""
        if name not in (names := [*self._jobs, *known]):
            near = get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "`list` shows what there is"
            raise Refused(f"no job {name!r}: {hint}")
        if name in self._jobs and self._jobs[name].each_process:
            raise Refused(f"{name} is run by each process for itself: the shell cannot reach it")


def main(words: Sequence[str] | None = None, *, jobs: Sequence[Function] = JOBS) -> int:
    """Do what the words, or else the command line, say; give the exit code."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a note has letters that it may not know
    try:
        arguments = read_arguments(words)
        settings = read_settings()
        set_up_logs(settings)
        code = asyncio.run(Shell(settings, jobs).do(arguments))
        sys.stdout.flush()
    except (Refused, SettingsError, JobError) as error:
        return _tell(str(error), REFUSED)
    except StoreUnavailable as error:
        return _tell(f"{UNUSABLE}: {error}", FAILED)
    except KeyboardInterrupt:
        return BY_SIGNAL + SIGINT
    except BrokenPipeError:  # who read it has left, as `head` does: Python need not say so, too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BY_SIGNAL + 13  # of SIGPIPE, which Windows does not have
    return code


async def _by_name(records: Records) -> dict[str, JobRecord]:
    return {record.name: record for record in await records.jobs()}


def _tell(line: str, code: int) -> int:
    print(line, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
