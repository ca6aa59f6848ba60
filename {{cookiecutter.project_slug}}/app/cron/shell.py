"""What the shell does: look and steer by the database, and run jobs in the app of `main.py`."""

import asyncio
import logging
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, closing, nullcontext, suppress
from datetime import timedelta
from difflib import get_close_matches
from signal import SIGINT, SIGTERM

from app.db import missing_file, open_database, upgrade_schema
from app.main import create_app
from app.settings import Settings

from . import screen
from .clock import Clock, seeded
from .command_line import Refused
from .due import due_times, has_waited, is_due
from .job import Function, Job, collect
from .plan import Plan
from .records import JobRecord, Records, unavailable
from .scheduler import Scheduler
from .sql_store import SqlStore
from .store import Finish, StoreUnavailable
from .tables import STEPS, check_version

log = logging.getLogger(__name__)

# Exit codes. 75 is "try again later" in sysexits.h, above 128 is how shells tell of a signal.
FAILED, REFUSED, ELSEWHERE, BY_SIGNAL = 1, 2, 75, 128

UNUSABLE = "the database cannot be used"


class Shell:
    """A method for each command, which gives the exit code, and what they work with."""

    def __init__(self, settings: Settings, functions: Sequence[Function], clock: Clock) -> None:
        self._settings = settings
        self._functions = functions
        self._jobs = {job.name: job for job in collect(functions)}
        self._clock = clock
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
            name, now = store.database_name, await store.now()
        if arguments.json:
            screen.show_list_as_json(self._jobs, records, processes, name)
        else:
            screen.show_list(self._jobs, records, processes, name, now)
        return 0

    async def next(self, arguments: Namespace) -> int:
        """When the job is due. Without CRON_SEED chance is not known, only what it can do."""
        job = self._shared(arguments.name)
        async with self._store() as store:
            record, now = (await _by_name(store)).get(job.name), await store.now()
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
            runs, now = await store.history(arguments.name), await store.now()
        if arguments.json:
            screen.show_as_json(runs)
        else:
            screen.show_history(arguments.name, runs, now)
        return 0

    async def run(self, arguments: Namespace) -> int:
        """Claim the job, due or not, and run it."""
        job = self._shared(arguments.name)
        async with self._scheduler() as (scheduler, records):
            finish = await self._run(job, scheduler, forced=True)
            if finish is None:
                record = (await _by_name(records)).get(job.name)
                return tell(screen.elsewhere(job.name, record, await records.now()), ELSEWHERE)
        return 0 if finish.outcome == "ok" else FAILED

    async def run_due(self, arguments: Namespace) -> int:
        """Run what is due, or has waited for its shortest gap, each job by itself."""
        all_names = [job.name for job in self._jobs.values() if not job.each_process]
        jobs = [self._shared(name) for name in dict.fromkeys(arguments.names or all_names)]
        threads = asyncio.Semaphore(self._settings.cron_threads)
        async with self._scheduler() as (scheduler, records):
            known, now = await _by_name(records), await records.now()

            async def run(job: Job, record: JobRecord) -> int:
                due = is_due(record, now)
                if not due and not has_waited(job, record, now):
                    print(screen.not_due(record, now))
                    return 0
                async with threads if job.threaded else nullcontext():
                    # Of all who have seen this run_no, one gets the run.
                    finish = await self._run(job, scheduler, not due, record.run_no)
                if finish is None:
                    latest, seen = (await _by_name(records)).get(job.name), record.last_run
                    print(screen.elsewhere(job.name, latest, await records.now(), seen))
                return 0 if finish is None or finish.outcome in ("ok", "missed") else FAILED

            tasks = [
                asyncio.create_task(_by_itself(run, job, known[job.name]))
                for job in jobs
                if job.name in known
            ]
            await asyncio.gather(*tasks, return_exceptions=True)
        return max((task.result() for task in tasks), default=0)

    async def pause(self, arguments: Namespace) -> int:
        """Let no run of the job begin but for a request."""
        async with self._store(new=False) as store:
            await self._register(arguments.name, store)
            await store.pause(arguments.name)
        print(screen.paused(arguments.name))
        return 0

    async def resume(self, arguments: Namespace) -> int:
        """Let runs of the job begin again."""
        async with self._store(new=False) as store:
            await self._register(arguments.name, store)
            await store.resume(arguments.name)
            record, now = (await _by_name(store))[arguments.name], await store.now()
        print(f"{record.name} is not paused: due {screen.next_run(record, now)}")
        return 0

    async def forget(self, arguments: Namespace) -> int:
        """Delete what is known of the job: above all of one that was renamed or removed."""
        name = arguments.name
        async with self._store(new=False) as store:
            self._check(name, await _by_name(store))
            if not await store.forget(name) and name in (known := await _by_name(store)):
                why = screen.elsewhere(name, known[name], await store.now())
                return tell(f"{why}: not forgotten", ELSEWHERE)
        print(f"{name} is forgotten{', to this code it is new' if name in self._jobs else ''}")
        return 0

    @asynccontextmanager
    async def _store(self, *, new: bool = True) -> AsyncIterator[SqlStore]:
        """What the database, which may be `new` or not, knows of the jobs. Nothing is started."""
        if not new and (path := missing_file(self._settings)):
            hint = "is DATABASE_URL set as for the service?"
            raise Refused(f"no database at {path}: {hint}")
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


async def _by_itself(
    run: Callable[[Job, JobRecord], Awaitable[int]], job: Job, record: JobRecord
) -> int:
    """The exit code of the job's run. What goes wrong with it ends no other."""
    try:
        return await run(job, record)
    except StoreUnavailable as error:
        return tell(f"{UNUSABLE}: {error}", FAILED)
    except BrokenPipeError:  # no fault of the job: for `main`, when all runs have ended
        raise
    except Exception:
        log.exception("cron: run-due has failed with %s", job.name, extra={"job": job.name})
        return FAILED


async def _by_name(records: Records) -> dict[str, JobRecord]:
    return {record.name: record for record in await records.jobs()}


def tell(line: str, code: int) -> int:
    """Say it on the error output, and give the exit code."""
    print(line, file=sys.stderr)
    return code
