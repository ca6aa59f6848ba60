"""The runs under way in this process."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any
from weakref import WeakSet

from starlette.datastructures import State

from .clock import Clock, RandomSource
from .fence import Fence
from .inject import Injected
from .run import JobRun
from .store import Claimed, Finish
from .threads import DaemonThreads

log = logging.getLogger(__name__)


class Running:
    """Starts claimed runs, at most one of a job at a time, and tells when they have ended."""

    def __init__(
        self,
        jobs: Sequence[Injected],
        *,
        clock: Clock,
        random: RandomSource,
        state: Mapping[str, Any],
        threads: int,
        ended: Callable[[Finish], None],
    ) -> None:
        self._jobs = {injected.job.name: injected for injected in jobs}
        self._clock = clock
        self._random = random
        self._state = state
        self._thread_limit = threads
        self._threads = DaemonThreads(threads, "cron-job")
        self._ended = ended
        self._runs: dict[str, JobRun] = {}
        self._waiting: set[str] = set()
        self._warned: WeakSet[JobRun] = WeakSet()

    @property
    def names(self) -> list[str]:
        """The jobs that are running."""
        return sorted(self._runs)

    def runs_of(self, names: Iterable[str]) -> list[JobRun]:
        """The runs under way of these jobs."""
        return [self._runs[name] for name in names if name in self._runs]

    def free_threads(self) -> int:
        """How many `def` jobs could start now."""
        return self._thread_limit - sum(run.job.threaded for run in self._runs.values())

    def warn_of_wait(self, name: str) -> None:
        """Say in the log that the job waits for a thread, once for each wait."""
        if name not in self._waiting:
            self._waiting.add(name)
            log.warning("cron: %s is due but all threads are busy (CRON_THREADS)", name)

    def begin(self, claimed: Claimed, fence: Fence | None, trusted_until: float) -> None:
        """Start a run. When it is over, `ended` is called with how it ended."""
        self._waiting.discard(claimed.name)
        run = JobRun(
            self._jobs[claimed.name],
            claimed,
            clock=self._clock,
            random=self._random,
            state=State(dict(self._state)),
            threads=self._threads,
            fence=fence,
            trusted_until=trusted_until,
        )
        self._runs[claimed.name] = run
        run.task.add_done_callback(partial(self._end, run))

    def warn_of_late(self) -> None:
        """Name in the log, once each, the runs that go on though their timeout is over."""
        for name, run in self._runs.items():
            if run.late() and run not in self._warned:
                self._warned.add(run)
                log.warning(
                    "cron: %s run %d is over its timeout and does not end; "
                    "the job is not run again until it does",
                    name,
                    run.claimed.run_no,
                )

    def request_stop(self) -> None:
        """Ask all runs to stop."""
        for run in self._runs.values():
            run.context.request_stop()

    async def wait(self) -> None:
        """Wait until all runs have ended."""
        while self._runs:
            await asyncio.wait([run.task for run in self._runs.values()])

    def cancel(self) -> None:
        """Cut all runs short."""
        for run in self._runs.values():
            run.cancel()

    def leave_behind(self) -> None:
        """Give up the runs that do not end, and take no more."""
        for name, run in self._runs.items():
            log.error("cron: %s run %d does not end; it is left behind", name, run.claimed.run_no)
            # Or asyncio.run would wait for it, without a limit.
            asyncio.tasks._unregister_task(run.task)
        self._threads.shutdown()

    def _end(self, run: JobRun, _: asyncio.Task[Any]) -> None:
        del self._runs[run.job.name]
        self._ended(run.finish())
