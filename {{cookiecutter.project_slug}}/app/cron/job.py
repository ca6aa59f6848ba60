"""What a job is: a function, its schedule, its limits, and the context that each run of it gets."""

import inspect
import logging
import re
from collections import Counter
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection
from starlette.datastructures import State

from .clock import Clock
from .fence import Fence
from .schedule import Schedule

TIMEOUT_MIN, TIMEOUT_MAX = timedelta(seconds=30), timedelta(hours=1)

NAME = r"[A-Za-z0-9_.-]{1,100}"

Function = Callable[..., Any]
AnyFunction = TypeVar("AnyFunction", bound=Function)


class JobError(ValueError):
    """A job is declared in a way that cannot work. The message names the job and the value."""


@dataclass(frozen=True, slots=True)
class Job:
    """A declared job. What the fields mean, `job` says."""

    function: Function
    schedule: Schedule
    name: str
    timeout: timedelta | Literal["interval"] | None
    max_late: timedelta | None
    each_process: bool

    @property
    def threaded(self) -> bool:
        """True for `def`, which runs in a thread; `async def` runs on the event loop."""
        return not inspect.iscoroutinefunction(self.function)

    def check(self) -> None:
        """Raise JobError unless the declaration makes sense."""
        if not isinstance(self.name, str) or not re.fullmatch(NAME, self.name):
            raise JobError(
                f"job {self.name!r}: a name is 1 to 100 letters, digits, '_', '-' and '.', "
                "as 'expire_sessions'"
            )
        if inspect.isgeneratorfunction(self.function) or inspect.isasyncgenfunction(self.function):
            raise JobError(f"job {self.name!r}: a job cannot yield; return a note instead")
        if not isinstance(self.schedule, Schedule):
            raise JobError(
                f"job {self.name!r}: {self.schedule!r} is not a schedule, as every(minutes=5) is"
            )
        try:
            self.schedule.check()
        except ValueError as error:
            raise JobError(f"job {self.name!r}: {error}") from error
        if self.timeout not in (None, "interval") and not _is_positive(self.timeout):
            raise JobError(
                f"job {self.name!r}: timeout={self.timeout!r} must be a positive timedelta, "
                "or None for never"
            )
        if self.max_late is not None and not _is_positive(self.max_late):
            raise JobError(
                f"job {self.name!r}: max_late={self.max_late!r} must be a positive timedelta, "
                "or None: better late than never"
            )


def _is_positive(value: object) -> bool:
    return isinstance(value, timedelta) and value > timedelta(0)


def job(
    schedule: Schedule,
    *,
    name: str | None = None,
    timeout: timedelta | Literal["interval"] | None = "interval",
    max_late: timedelta | None = None,
    each_process: bool = False,
) -> Callable[[AnyFunction], AnyFunction]:
    """Declare a function as a recurring job; list it in `JOBS` and it runs.

    `async def` runs on the event loop, `def` in a thread. What it returns is the note shown beside
    the run. `name` (default: the function's) identifies the job for as long as it lives. A run is
    cancelled after `timeout`: by default the interval, at least 30 seconds, at most an hour; with
    None never. A run that comes more than `max_late` after it was due, say after an outage, is
    `missed` and does not begin; with None it runs however late.

    Of all processes that share the database, one makes each run. With `each_process=True` each
    makes it for itself, from its own memory, and nothing of it is kept.

    The function itself is returned, so a test can call it. Nothing is checked here: `collect` does,
    at start, where a mistake can be told in one line.
    """

    def declare(function: AnyFunction) -> AnyFunction:
        job_name = name or str(getattr(function, "__name__", function))
        declared = Job(function, schedule, job_name, timeout, max_late, each_process)
        setattr(function, "__cron_job__", declared)
        return function

    return declare


def collect(functions: Sequence[Function]) -> list[Job]:
    """The jobs that the functions declare. Raises JobError for the first that cannot work."""
    jobs: list[Job] = []
    for function in functions:
        declared = getattr(function, "__cron_job__", None)
        if not isinstance(declared, Job):
            raise JobError(f"{function!r} is not a job: put @job(every(minutes=5)) above it")
        declared.check()
        jobs.append(declared)
    for name, count in Counter(job.name for job in jobs).items():
        if count > 1:
            raise JobError(f"job {name!r}: {count} jobs have this name; give one @job(..., name=)")
    return jobs


class JobLog(logging.LoggerAdapter[logging.Logger]):
    """A logger whose lines name the job and the run, and carry both as fields."""

    def __init__(self, name: str, run_no: int) -> None:
        super().__init__(logging.getLogger(__name__), {"job": name, "run_no": run_no})
        self._prefix = f"{name} run {run_no}: "

    def process(
        self, msg: object, kwargs: MutableMapping[str, Any]
    ) -> tuple[str, MutableMapping[str, Any]]:
        """Add to the line what the run is."""
        extra = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return f"{self._prefix}{msg}", {**kwargs, "extra": extra}


class JobContext:
    """What one run of a job is given: take it as a parameter, `ctx: JobContext`."""

    def __init__(
        self,
        *,
        name: str,
        clock: Clock,
        random: Random,
        run_no: int,
        state: State,
        threaded: bool = False,
        fence: Fence | None = None,
    ) -> None:
        self.clock = clock
        """The app's clock: ask it, not `datetime`, what time it is."""
        self.random = random
        """This run's own source of chance."""
        self.log = JobLog(name, run_no)
        """A logger that adds the job and the run to each line."""
        self.run_no = run_no
        """1 for the first run of the job that its store knows of, then 2, and so on."""
        self.state = state
        """What the lifespan shares, as `request.state` in an endpoint."""
        self._threaded = threaded
        self._fence = fence
        self._stop_requested = False
        self._stop_seen = False

    def write(self, function: Callable[[Connection], Any]) -> Any:
        """Run `function(connection)` in a transaction of its own, off the event loop, and give what
        it returns. In `async def`, await it.

        Raises LeaseLost, and nothing is written, unless this run is still its job's last when the
        transaction ends; and WriteTooLong when that took more than a sixth of the lease (5 s).
        """
        fence = self._its_fence("db.write(function)")
        return fence.write_here(function) if self._threaded else fence.write(function)

    def fence(self, session: Any) -> Any:
        """For a transaction of your own: call it as the last thing before its commit. Raises
        LeaseLost when this run is not its job's last any more: then roll back.

        `session` is a session or connection of SQLAlchemy's; for an async one, await it.
        """
        return self._its_fence("commit without it").check(session)

    def _its_fence(self, instead: str) -> Fence:
        if self._fence is None:
            raise RuntimeError(f"this run is kept in memory, where it has no rival: {instead}")
        return self._fence

    @property
    def stopping(self) -> bool:
        """True once the app shuts down, and in a thread once its timeout is over: return soon.

        A run that has seen this, however it then ends, counts as interrupted, not as done.
        """
        if self._stop_requested:  # read once, for it may change between two reads
            self._stop_seen = True
        return self._stop_seen

    @property
    def stop_seen(self) -> bool:
        """True if the body has been told by `stopping`."""
        return self._stop_seen

    def request_stop(self) -> None:
        """Make `stopping` true. From any thread."""
        self._stop_requested = True
