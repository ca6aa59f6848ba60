"""The jobs of the simulation: each kind misbehaves in a way of its own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI

from app.cron import JobContext, crontab, every, job
from app.cron.fence import LeaseLost
from app.cron.inject import Injected, prepare

from .door import Door
from .history import Body, Record, Terms
from .loop import SECOND, this_thread
from .server import write_effect

APP = FastAPI()


@dataclass(frozen=True)
class Stage:
    """What a body finds of its process, in `ctx.state.stage`."""

    door: Door
    record: Callable[[Record], None]


class Act:
    """A body at work: it tells the history what becomes of it."""

    def __init__(self, ctx: JobContext, name: str) -> None:
        self.ctx = ctx
        self.name = name
        self.random = ctx.random
        stage: Stage = ctx.state.stage
        self.door, self._record = stage.door, stage.record
        self._told = False

    def tell(self, what: str, detail: str = "") -> None:
        """Say that this happens now."""
        process = self.door.process
        if process.alive and (what != "told" or not self._told):
            self._told |= what == "told"
            at, run_no = process.world.now, self.ctx.run_no
            self._record(Body(at, process.name, self.name, run_no, what, detail))

    @contextmanager
    def lasting(self) -> Iterator[None]:
        """From its begin to its end."""
        self.tell("begun")
        try:
            yield
        except asyncio.CancelledError:
            self.tell("told")
            self.tell("ended", "cancelled")
            raise
        except LeaseLost:
            self.tell("ended", "refused")
            raise
        except Exception as error:
            self.tell("ended", type(error).__name__)
            raise
        self.tell("ended", "stopped" if self._told else "returned")

    async def sleep(self, low: float, high: float) -> None:
        """For so many seconds."""
        await self.ctx.clock.sleep(self.random.uniform(low, high))

    def stops(self) -> bool:
        """Whether it has been told to stop."""
        if self.ctx.stopping:
            self.tell("told")
        return self._told

    def effect(self, hold: float = 0.0) -> Any:
        """Write something behind the fence, within a transaction that lasts."""

        def write(connection: Any) -> None:
            if hold:
                self.door.hold(hold)
            write_effect(connection, self.name, self.ctx.run_no)

        return self.ctx.write(write)


async def acts() -> AsyncIterator[list[Act]]:
    """What each body depends on: it puts itself there, and is told of when that is torn down."""
    given: list[Act] = []
    try:
        yield given
    finally:
        for act in given:
            act.tell("torn down")


Acts = Annotated[list[Act], Depends(acts)]


async def quick(act: Act) -> None:
    """It does what it should."""
    await act.sleep(0, 2)


async def writes(act: Act) -> None:
    """It writes twice, each time behind the fence."""
    for _ in range(2):
        await act.sleep(0, 20)
        await act.effect()


async def fences(act: Act) -> None:
    """It writes in a transaction of its own."""
    await act.sleep(0, 40)

    def write(connection: Any) -> None:
        write_effect(connection, act.name, act.ctx.run_no)
        act.ctx.fence(connection)

    await act.door.write(write)


async def raises(act: Act) -> None:
    """It fails two times of three: also with a cancel that nobody has asked for."""
    await act.sleep(0, 3)
    error = act.random.choice(
        [None, ValueError, RuntimeError, asyncio.CancelledError, TimeoutError]
    )
    if error is asyncio.CancelledError:
        act._told = True  # nobody has
    if error is not None:
        raise error("as it does")


async def hangs(act: Act) -> None:
    """It ends by its timeout only."""
    await act.sleep(36_000, 36_000)


async def swallows(act: Act) -> None:
    """It ends late when it is cancelled, or all but never, and then tries to write."""
    try:
        await act.sleep(0, 100)
    except asyncio.CancelledError:
        act.tell("told", "swallowed")
        until = (
            act.random.choice([0.5, 0.5, 5.0, 20.0, 20.0, 40.0, 40.0, 600.0])
            + act.ctx.clock.monotonic()
        )
        while (left := until - act.ctx.clock.monotonic()) > 0:
            try:
                await act.ctx.clock.sleep(max(left, 0.001))
            except asyncio.CancelledError:
                continue
    await act.effect()


async def cleans(act: Act) -> None:
    """It cleans up when it is cancelled, for less than the second that it has."""
    try:
        await act.sleep(0, 30)
    except asyncio.CancelledError:
        act.tell("told")
        await asyncio.sleep(0.5)
        raise


async def overruns(act: Act) -> None:
    """It takes longer than its interval, and stops when it is asked to."""
    until = act.ctx.clock.monotonic() + act.random.choice([5, 5, 30, 30, 800])
    while not act.stops() and act.ctx.clock.monotonic() < until:
        await act.ctx.clock.sleep(5)


async def holds(act: Act) -> None:
    """It keeps a transaction open, sometimes for longer than it may."""
    await act.sleep(0, 10)
    await act.effect(hold=act.random.uniform(0.1, 9))


def threaded(act: Act) -> None:
    """It works in a thread, stops when it is asked to, and writes."""
    seconds = act.random.uniform(0, 40)
    while seconds > 0 and not act.stops():
        this_thread().sleep(5)
        seconds -= 5
    act.effect()


def deaf(act: Act) -> None:
    """It works in a thread that nothing can stop, and then tries to write."""
    this_thread().sleep(act.random.uniform(0, 150))
    act.effect()


Play = Callable[[Act], Any]


@dataclass(frozen=True)
class Kind:
    """How jobs of a kind are declared."""

    play: Play
    minutes: tuple[float, ...] = (20.0, 30.0, 60.0)
    jitter: float | None = 0.3
    times: str = ""
    """Of a crontab, with `minutes` in it."""
    timeout_seconds: float | None = None
    deaf: bool = False
    threaded: bool = False


KINDS: dict[str, Kind] = {
    "quick": Kind(quick, jitter=None),
    "writes": Kind(writes),
    "fences": Kind(fences),
    "raises": Kind(raises),
    "hangs": Kind(hangs, timeout_seconds=45),
    "swallows": Kind(swallows, minutes=(6.0, 20.0), timeout_seconds=60, deaf=True),
    "cleans": Kind(cleans, jitter=0.9),
    "overruns": Kind(overruns, minutes=(10.0, 15.0), timeout_seconds=0),
    "holds": Kind(holds),
    "threaded": Kind(threaded, threaded=True),
    "deaf": Kind(deaf, timeout_seconds=60, deaf=True, threaded=True),
    "crontab": Kind(writes, minutes=(20.0, 30.0), times="*/{minutes:g} * * * *"),
    "nightly": Kind(quick, minutes=(1440.0,), times="0,30 0-6,21-23 * * *"),
    "exact": Kind(writes, jitter=0.0),
    "late": Kind(writes, jitter=0.5),
    "alone": Kind(quick),
}


@dataclass(frozen=True)
class Spec:
    """A job as one version of the code declares it."""

    name: str
    kind: str
    minutes: float

    def terms(self) -> Terms:
        """What the oracle is told of it."""
        kind, period = KINDS[self.kind], round(self.minutes * 60 * SECOND)
        timeout: float | None = kind.timeout_seconds
        if timeout is None:
            timeout = max(30, min(self.minutes * 60, 3600))
        return Terms(
            self.kind,
            period,
            0.0 if kind.times else 0.3 if kind.jitter is None else kind.jitter,
            splay=60 * SECOND if kind.times else None,
            timeout=round(timeout * SECOND) or None,
            deaf=kind.deaf,
            threaded=kind.threaded,
            nightly=self.kind == "nightly",
            alone=self.kind == "alone",
        )


@lru_cache(maxsize=1000)
def injected(spec: Spec) -> Injected:
    """The job, ready to run in any process."""
    kind = KINDS[spec.kind]
    if kind.times:
        times = kind.times.format(minutes=spec.minutes)
        schedule = crontab(times, tz="Europe/Madrid", splay=timedelta(minutes=1))
    elif kind.jitter is None:
        schedule = every(minutes=spec.minutes)
    else:
        schedule = every(minutes=spec.minutes, jitter=kind.jitter)
    timeout: timedelta | Literal["interval"] | None = "interval"
    if kind.timeout_seconds is not None:
        timeout = timedelta(seconds=kind.timeout_seconds) or None
    declare = job(
        schedule,
        name=spec.name,
        timeout=timeout,
        max_late=timedelta(seconds=30) if spec.kind == "late" else None,
        each_process=spec.kind == "alone",
    )

    async def play(ctx: JobContext, acts: Acts) -> None:
        acts.append(act := Act(ctx, spec.name))
        with act.lasting():
            await kind.play(act)

    def play_in_thread(ctx: JobContext, acts: Acts) -> None:
        acts.append(act := Act(ctx, spec.name))
        with act.lasting():
            kind.play(act)

    return prepare([declare(play_in_thread if kind.threaded else play)], APP)[0]
