"""One run of a job: its body within its timeout, what came of it, and when the next one is due."""

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from contextvars import copy_context
from datetime import datetime, timedelta
from functools import partial
from inspect import iscoroutine
from math import inf
from reprlib import repr  # noqa: A004 -- it is short and quick whatever the size
from typing import Any

from starlette.datastructures import State

from .clock import Clock, RandomSource
from .fence import Fence, LeaseLost
from .inject import Injected
from .job import TIMEOUT_MAX, TIMEOUT_MIN, JobContext
from .schedule import draw
from .store import Claimed, Finish, Outcome

# The wait after a first failure. It doubles with each further one in a row, up to the job's period.
RETRY = timedelta(seconds=5)

# A note is a line beside the run; an error is the head of a traceback that is in the log.
LINE_CHARACTERS_MAX = 500


class JobRun:
    """A claimed run. `task` is its body; when that is done, `finish()` says what came of it.

    The outcome is read off the task from outside, so nothing can keep it from being known: no
    exception of any kind, no cancel before the first step.
    """

    def __init__(
        self,
        injected: Injected,
        claimed: Claimed,
        *,
        clock: Clock,
        random: RandomSource,
        state: State,
        threads: Executor,
        fence: Fence | None = None,
        trusted_until: float = inf,
    ) -> None:
        self.job = injected.job
        self.claimed = claimed
        self.fence = fence
        self.trusted_until = trusted_until
        """Up to when, on the monotonic clock, no other process can have claimed the job."""
        self.lost: LeaseLost | None = None
        key = f"{self.job.name}:{claimed.run_no}"
        self.context = JobContext(
            name=self.job.name,
            clock=clock,
            random=random(f"{key}:body"),
            run_no=claimed.run_no,
            state=state,
            threaded=self.job.threaded,
            fence=fence,
        )
        self._injected = injected
        self._random = random
        self._threads = threads
        self._guard: asyncio.Timeout | None = None
        self._cancelled = False
        self.task = asyncio.create_task(self._body(), name=f"cron {key}")

    def cancel(self) -> None:
        """Cut the run short, unless it is done. A second cancel would cut its cleaning up short."""
        if not self._cancelled:
            self._cancelled = self.task.cancel()

    def lose_lease(self, reason: str) -> None:
        """Stop it: another process may run the job from now on."""
        if self.lost is None and not self.task.done():
            self.lost = LeaseLost(reason)
            self.context.log.error("its lease is lost, it is stopped: %s", reason)
            self.task.cancel()

    def late(self) -> bool:
        """True once its timeout is over, whether it has ended by that or not."""
        return self._guard is not None and self._guard.expired()

    def finish(self) -> Finish:
        """What came of the run, whose task is done. An error is logged with its traceback."""
        outcome, note, error = self._result()
        failures = self.claimed.failures
        if outcome == "ok":
            failures = 0
        elif outcome != "interrupted":
            failures += 1
        if error is not None:
            self.context.log.error("%s: %s", outcome, line_of(error), exc_info=error)
        seconds = self.context.clock.monotonic() - self.claimed.claimed_at
        return Finish(
            self.job.name,
            self.claimed.run_no,
            self.claimed.started_at + timedelta(seconds=seconds),
            outcome,
            note=line_of(note),
            error="" if error is None else f"{type(error).__name__}: {line_of(error)}",
            failures=failures,
            next_run_at=partial(self._next_run_at, outcome, failures),
        )

    def _result(self) -> tuple[Outcome, object, BaseException | None]:
        error: BaseException | None
        if self.task.cancelled():
            error = asyncio.CancelledError("nobody asked for this cancel")
        else:
            error = self.task.exception()
        note = self.task.result() if error is None else None
        if self.lost is not None:
            self.lost.__cause__ = None if self.task.cancelled() else error
            return "error", note, self.lost
        if self.late():
            timeout = TimeoutError(f"longer than {self._allowed()}")
            timeout.__cause__ = error
            return "timeout", note, timeout
        # A thread hears of it from `ctx.stopping` alone: one that did not look has done it all.
        unheard = self.job.threaded and error is None
        if self.context.stop_seen or (self._cancelled and not unheard):
            return "interrupted", note, None if self.task.cancelled() else error
        return ("ok" if error is None else "error"), note, error

    def _next_run_at(
        self, outcome: Outcome, failures: int, now: datetime, due: datetime
    ) -> datetime:
        if outcome == "interrupted":
            return now
        schedule, key = self.job.schedule, f"{self.job.name}:{self.claimed.run_no}"
        if due <= now:  # an overrun: what fell due meanwhile is skipped
            due = schedule.next(now, self._random(f"{key}:gap"))
        if outcome == "ok":
            return due
        wait = min(schedule.period(now), RETRY * 2 ** min(failures - 1, 30))
        low, high = wait * (1 - schedule.jitter), wait * (1 + schedule.jitter)
        return min(due, now + draw(low, high, self._random(f"{key}:retry")))

    async def _body(self) -> Any:
        invoke = self._call_in_thread if self.job.threaded else self._call
        allowed = self._allowed()
        seconds = None if allowed is None else allowed.total_seconds()
        async with self.context.clock.timeout(seconds) as self._guard:
            try:
                return await self._injected.run(self.context, invoke)
            except (KeyboardInterrupt, SystemExit) as error:  # they would end the app
                raise RuntimeError(f"the body raised {error!r}") from error

    def _allowed(self) -> timedelta | None:
        if self.job.timeout != "interval":
            return self.job.timeout
        period = self.job.schedule.period(self.claimed.started_at)
        return max(TIMEOUT_MIN, min(period, TIMEOUT_MAX))

    def _check_lease(self) -> None:
        """Raise LeaseLost if it is not trusted any more: since the claim, the process may have been
        frozen, or the dependencies may have taken long."""
        if self.context.clock.monotonic() >= self.trusted_until:
            raise LeaseLost("it ended before the body could begin")

    async def _call(self, call: Callable[[], Any]) -> Any:
        self._check_lease()
        return await call()

    async def _call_in_thread(self, call: Callable[[], Any]) -> Any:
        """Call it in a thread. A cancel asks the thread to stop, which says itself how it ends."""
        run = partial(copy_context().run, self._call_guarded, call)
        thread = asyncio.get_running_loop().run_in_executor(self._threads, run)
        while not thread.done():
            try:
                await asyncio.wait([thread])
            except asyncio.CancelledError:
                self.context.request_stop()
        return thread.result()

    def _call_guarded(self, call: Callable[[], Any]) -> Any:
        self._check_lease()
        try:
            result = call()
        except StopIteration as error:  # no future can carry it
            raise RuntimeError("the body raised StopIteration") from error
        if iscoroutine(result):
            result.close()
            raise TypeError("it returned a coroutine, which nobody awaits: declare it `async def`")
        return result


def line_of(value: object) -> str:
    """One short line that says what `value` is, whatever it is."""
    try:
        if isinstance(value, str | bytes) or not isinstance(value, Collection):
            text = "" if value is None else str(value)
        else:
            text = repr(value)
    except BaseException:  # noqa: BLE001 -- a broken __str__ must not hide how a run ended
        text = f"<{type(value).__name__}>"
    # What cannot be printed, as a line's end or half a surrogate, has no place in a log or a table.
    printable = "".join(c if c.isprintable() else " " for c in text[: 2 * LINE_CHARACTERS_MAX])
    return " ".join(printable.split())[:LINE_CHARACTERS_MAX]
