"""Virtual time: one world decides which process takes its next step, and when."""

import asyncio
import heapq
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from itertools import count
from math import ceil
from random import Random
from typing import Any

SECOND = 1_000_000
"""The world counts whole microseconds."""

# Processes that take so many steps while no time passes spin.
STEPS_MAX = 20_000


class Killed(BaseException):
    """Raised in a thread or a transaction whose process has been killed."""


class World:
    """The one clock, in true time, and all that waits for it.

    What is due at the same microsecond in several processes goes in an order that chance draws.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.now = 0
        self.awake: list[ProcessLoop] = []
        """Those that have something to do, if nothing holds them."""
        self._steps = 0  # since time has passed
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()

    def at(self, when: int, call: Callable[[], None]) -> None:
        """Call it at a moment of true time."""
        heapq.heappush(self._agenda, (max(when, self.now), next(self._order), call))

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call it when so much true time has passed."""
        self.at(self.now + round(seconds * SECOND), call)

    def run(self, until: int) -> None:
        """Let time pass."""
        self._settle()
        agenda = self._agenda
        while agenda and agenda[0][0] <= until:
            if agenda[0][0] > self.now:
                self.now, self._steps = agenda[0][0], 0
            while agenda and agenda[0][0] == self.now:
                heapq.heappop(agenda)[2]()
            self._settle()
        self.now = until

    def _settle(self) -> None:
        """Let all processes take the steps that they can take without time passing."""
        while able := [process for process in self.awake if process.able()]:
            process = able[0] if len(able) == 1 else self.random.choice(able)
            while process.able():
                process.step()
                self._steps += 1
                if self._steps > STEPS_MAX:
                    raise RuntimeError(f"{process.name} spins at {self.now}")
            process.rest()
        asyncio._set_running_loop(None)


class ProcessLoop(asyncio.BaseEventLoop):
    """A process: its event loop, its threads and its monotonic clock, which may drift."""

    def __init__(self, world: World, name: str, drift: float) -> None:
        super().__init__()
        self.name = name
        self.world = world
        self.threads: list[Thread] = []
        self.timers = 0
        self.alive = True
        self.frozen_until = 0
        self.blocked_until = 0
        self.fuse: tuple[int, Callable[[], None]] | None = None
        """After so many more steps, this fault strikes."""
        self._rate = 1 + drift
        self._awake = False
        self._steps: deque[asyncio.Handle] = deque()
        self._work: deque[Callable[[], None]] = deque()

    def able(self) -> bool:
        """Whether it can do something now."""
        if not (self._steps or self._work) or self.frozen_until > self.world.now or not self.alive:
            return False
        return bool(self._work) or self.blocked_until <= self.world.now

    def rest(self) -> None:
        """It has nothing to do any more, or is held."""
        if self._awake and not (self.alive and (self._steps or self._work)):
            self._awake = False
            self.world.awake.remove(self)

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            self.world.awake.append(self)

    def step(self) -> None:
        """Do one thing: what its threads do goes first."""
        if self._work:
            self._work.popleft()()
            return
        if self.fuse is not None:
            left, strike = self.fuse
            self.fuse = (left - 1, strike) if left else None
            if not left:
                strike()
                return
        asyncio._set_running_loop(self)
        handle = self._steps.popleft()
        if not handle.cancelled():
            handle._run()

    def freeze(self, seconds: float) -> None:
        """Hold all of it, as SIGSTOP does: timers fire late, and all at once."""
        self.frozen_until = self.world.now + round(seconds * SECOND)
        self.world.at(self.frozen_until, lambda: None)

    def block(self, seconds: float) -> None:
        """Hold its event loop, as a body does that computes; its threads go on."""
        self.blocked_until = self.world.now + round(seconds * SECOND)
        self.world.at(self.blocked_until, lambda: None)

    def kill(self) -> None:
        """End it, as SIGKILL does."""
        self.alive = False
        self.rest()
        for thread in list(self.threads):
            if thread.rests:
                thread.resume()

    def work_after(self, seconds: float, call: Callable[[], None]) -> None:
        """Do it outside of the event loop, after so much true time, unless it is killed."""

        def work() -> None:
            self._work.append(call)
            self._wake()

        self.world.after(seconds, work)

    # What asyncio asks of a loop

    def time(self) -> float:
        return self.world.now / SECOND * self._rate

    def _call_soon(self, callback: Any, args: Any, context: Any) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._steps.append(handle)
        self._wake()
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        handle._scheduled = True  # type: ignore[attr-defined]
        self.timers += 1

        def fire() -> None:
            if not handle.cancelled():
                self._timer_handle_cancelled(handle)
                self._steps.append(handle)
                self._wake()

        self.world.at(ceil(when * SECOND / self._rate - 1e-3), fire)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It has been cancelled, or is over."""
        if handle._scheduled:  # type: ignore[attr-defined]
            handle._scheduled = False  # type: ignore[attr-defined]
            self.timers -= 1

    def is_running(self) -> bool:
        return False

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, function: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future = self.create_future()
        self.in_thread(lambda: function(*args), future, name="body")
        return future

    def in_thread(
        self, call: Callable[[], Any], future: asyncio.Future[Any], name: str = "database"
    ) -> None:
        """Call it in a thread of its own, which begins at once."""
        self.work_after(0, Thread(self, call, future, name).resume)

    def answer(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        """Give the loop what the future waits for."""

        def settle() -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self.call_soon(settle)


class Thread:
    """A thread that runs only while the world stands still for it: until it sleeps, or ends."""

    def __init__(
        self, process: ProcessLoop, call: Callable[[], Any], future: asyncio.Future[Any], name: str
    ) -> None:
        self.name = name
        self.process = process
        self._call = call
        self._future = future
        self._go, self._rest = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._main, daemon=True)
        self.rests = False
        process.threads.append(self)
        _threads[self._thread] = self

    def resume(self) -> None:
        """In the world: let it go on, until it rests."""
        asyncio._set_running_loop(None)
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._go.release()
        self._rest.acquire()

    def wait(self) -> None:
        """In the thread: rest until somebody resumes it."""
        self.rests = True
        self._rest.release()
        self._go.acquire()
        self.rests = False
        if not self.process.alive:
            raise Killed

    def sleep(self, seconds: float) -> None:
        """In the thread: let so much virtual time pass."""
        self.process.work_after(seconds, self.resume)
        self.wait()

    def _main(self) -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = self._call()
        except BaseException as caught:  # noqa: BLE001 -- it belongs to who awaits the future
            error = caught
        del _threads[self._thread]
        self.process.threads.remove(self)
        if self.process.alive:
            self.process.answer(self._future, result, error)
        self._rest.release()


_threads: dict[threading.Thread, Thread] = {}


def this_thread() -> Thread:
    """The simulated thread that asks."""
    return _threads[threading.current_thread()]
