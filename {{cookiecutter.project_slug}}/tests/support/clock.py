"""A clock that stands still until a test moves it."""

import asyncio
import heapq
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Protocol, Self, TypeVar
from unittest.mock import patch

import anyio.to_thread

from .process import REAL_SECONDS_MAX

T = TypeVar("T")

# A loop that has not come to rest after so many turns has a task that spins.
TURNS_MAX = 100_000

MICROSECOND = timedelta(microseconds=1)


class _Timer(Protocol):
    def alive(self) -> bool:
        """False when nobody waits for it any more."""

    def fire(self) -> None:
        """Wake who waits."""


class _Sleep:
    def __init__(self) -> None:
        self.future = asyncio.get_running_loop().create_future()

    def alive(self) -> bool:
        return not self.future.done()

    def fire(self) -> None:
        self.future.set_result(None)


class _Bound:
    def __init__(self) -> None:
        self.timeout = asyncio.Timeout(None)

    def alive(self) -> bool:
        try:
            self.timeout.reschedule(None)
        except RuntimeError:  # its block has been left
            return False
        return True

    def fire(self) -> None:
        self.timeout.reschedule(asyncio.get_running_loop().time())


class FakeClock:
    """A `Clock` whose time a test moves with `advance`.

    Time moves only when the event loop is at rest and no work is under way in a thread. That work
    is counted, from its submission until the loop has its result: in asyncio's executors, which
    hold the threads of `def` jobs and of the database, and in AnyIO's, which serve `def` endpoints
    and dependencies. Nothing is guessed from how long it takes, so a busy machine changes nothing.

    Use it as `with FakeClock() as clock:` in a running event loop. Timers of asyncio's own, such as
    an `asyncio.timeout` around real input and output, keep to real time.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._microseconds = 0  # that have passed since the start
        self._timers: list[tuple[int, int, _Timer]] = []
        self._order = count()
        self._in_flight = 0
        self._landed = asyncio.Event()
        self._stack = ExitStack()
        self._loop: asyncio.AbstractEventLoop | None = None

    # What the app sees

    def now(self) -> datetime:
        """The wall clock."""
        return self._start + timedelta(microseconds=self._microseconds)

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._microseconds / 1_000_000

    async def sleep(self, seconds: float) -> None:
        """Wait until a test has moved time by `seconds`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        sleep = _Sleep()
        self._add(max(seconds, 1e-6), sleep)  # or who sleeps until a moment might never get there
        await sleep.future

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """An `asyncio.timeout` in this clock's time."""
        bound = _Bound()
        if seconds is not None:
            self._add(seconds, bound)
        return bound.timeout

    # What a test does

    async def advance(self, by: timedelta | None = None, /, **amounts: float) -> None:
        """Let time pass: `advance(minutes=5)`. All that this sets off has come to rest after."""
        passing = (by or timedelta(**amounts)) // MICROSECOND
        if passing < 0:
            raise ValueError("time only passes; `step` sets the wall clock back")
        end = self._microseconds + passing
        await self.settle()
        while await self._tick(end):
            pass
        self._microseconds = end

    async def run(self, awaitable: Awaitable[T]) -> T:
        """Await it, letting time pass as far as it needs and no further."""
        task = asyncio.ensure_future(awaitable)
        await self.settle()
        while not task.done() and await self._tick():
            pass
        async with asyncio.timeout(REAL_SECONDS_MAX):
            return await task

    def step(self, by: timedelta | None = None, /, **amounts: float) -> None:
        """Set the wall clock forwards, or back, while no time passes."""
        self._start += by or timedelta(**amounts)

    def gate(self) -> "Gate":
        """Something for a thread to wait at until the test opens it."""
        return Gate(self)

    async def settle(self) -> None:
        """Wait until the loop is at rest and no thread works, without letting time pass."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            raise RuntimeError("use `with FakeClock() as clock:` in the test that advances it")
        # The queue of what runs next is the one thing here that asyncio does not show in public.
        ready: Any = loop._ready  # type: ignore[attr-defined]
        at_rest = turns = 0
        while at_rest < 2:  # the second turn takes in what the first one sent
            await asyncio.sleep(0)
            at_rest = 0 if ready else at_rest + 1
            turns += 1
            if self._in_flight and at_rest:
                await self._landing()
                at_rest = turns = 0
            elif turns > TURNS_MAX:
                raise RuntimeError(f"a task spins: the loop is not at rest after {turns} turns")

    # How it knows

    def __enter__(self) -> Self:
        self._loop = loop = asyncio.get_running_loop()
        default = self._stack.enter_context(ThreadPoolExecutor(thread_name_prefix="asyncio"))
        run_sync = anyio.to_thread.run_sync

        def run_in_executor(
            executor: Executor | None, function: Callable[..., T], *arguments: Any
        ) -> asyncio.Future[T]:
            work = _Work(self, loop)
            future = (executor or default).submit(work.wrap(function), *arguments)
            self.take_off()
            delivery = asyncio.wrap_future(future, loop=loop)
            delivery.add_done_callback(work.deliver)
            return delivery

        async def run_in_worker(function: Callable[..., T], *arguments: Any, **options: Any) -> T:
            work = _Work(self, loop)
            self.take_off()
            try:
                return await run_sync(work.wrap(function), *arguments, **options)
            finally:
                work.deliver()

        self._stack.enter_context(patch.object(loop, "run_in_executor", run_in_executor))
        self._stack.enter_context(patch.object(anyio.to_thread, "run_sync", run_in_worker))
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop = None
        self._stack.close()

    def take_off(self, works: int = 1) -> None:
        """Work has been given to threads."""
        self._in_flight += works

    def land(self) -> None:
        """Work in a thread is over, and the loop has its result."""
        self._in_flight -= 1
        if not self._in_flight:
            self._landed.set()

    async def _landing(self) -> None:
        self._landed.clear()
        try:
            async with asyncio.timeout(REAL_SECONDS_MAX):
                await self._landed.wait()
        except TimeoutError:
            raise RuntimeError(
                f"work in a thread has not ended in {REAL_SECONDS_MAX:g} real seconds; "
                "what waits for the test must wait at a `clock.gate()`"
            ) from None

    def _add(self, seconds: float, timer: _Timer) -> None:
        when = self._microseconds + max(0, round(seconds * 1_000_000))
        heapq.heappush(self._timers, (when, next(self._order), timer))

    async def _tick(self, end: int | None = None) -> bool:
        """Move time to the next timer, unless it lies beyond `end`, and let it have its effect."""
        while self._timers and not self._timers[0][2].alive():
            heapq.heappop(self._timers)
        if not self._timers or (end is not None and self._timers[0][0] > end):
            return False
        self._microseconds, _, timer = heapq.heappop(self._timers)
        timer.fire()
        await self.settle()
        return True


class _Work:
    """A call in a thread. It is over when it has ended and its result, if awaited, has arrived.

    The two differ where a waiting task is cancelled: then the thread goes on for nobody.
    """

    def __init__(self, clock: FakeClock, loop: asyncio.AbstractEventLoop) -> None:
        self._clock = clock
        self._loop = loop
        self._begun = False
        self._over = 0

    def wrap(self, function: Callable[..., T]) -> Callable[..., T]:
        def wrapped(*arguments: Any) -> T:
            self._begun = True
            try:
                return function(*arguments)
            finally:
                with suppress(RuntimeError):  # the loop has been closed
                    self._loop.call_soon_threadsafe(self._half_over)

        return wrapped

    def deliver(self, _: object = None) -> None:
        self._half_over()
        if not self._begun:  # cancelled while it waited for a thread
            self._half_over()

    def _half_over(self) -> None:
        self._over += 1
        if self._over == 2:
            self._clock.land()


class Gate:
    """Where a thread waits for the test. Such a thread does not keep time from moving."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._waiting = 0
        self._open = threading.Event()

    def wait(self) -> None:
        """In a thread: wait until the gate is open."""
        self._loop.call_soon_threadsafe(self._arrive)
        self._open.wait()

    def open(self) -> None:
        """In the test: let through who waits, and who will come."""
        self._clock.take_off(self._waiting)
        self._waiting = 0
        self._open.set()

    def _arrive(self) -> None:
        if not self._open.is_set():
            self._waiting += 1
            self._clock.land()
