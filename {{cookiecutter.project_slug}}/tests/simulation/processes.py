"""The processes of the simulation: the production code, with all that is not certain drawn."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, cast

from anyio._backends._asyncio import _task_states

from app.cron.clock import seeded
from app.cron.database import Database
from app.cron.scheduler import Scheduler
from app.cron.sql_store import SqlStore

from .door import Door
from .history import Answered, Asked, Killed, Problem, Record, Started, Stopped, Stopping
from .jobs import Spec, Stage, injected
from .loop import SECOND, ProcessLoop
from .server import Server

GRACE = timedelta(seconds=5)

# A process that has stopped is looked at so much later: what it has cancelled ends meanwhile.
REST_SECONDS = 0.01


class SimulatedClock:
    """A process's clocks. On SQLite all are on one machine, and share the wall clock."""

    def __init__(self, loop: ProcessLoop, server: Server, skew: int) -> None:
        self._loop = loop
        self._server = server
        self.skew = skew

    def now(self) -> datetime:
        return moment(self._server.store_now() + self.skew)

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        return asyncio.timeout(seconds)


def moment(microseconds: int) -> datetime:
    """The datetime so long after 1970."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


@dataclass(frozen=True)
class Setting:
    """What one seed has drawn for all of its processes."""

    seed: int
    instant: bool
    """True: the database answers in no time, so claims meet at one microsecond."""
    look_every: timedelta


class Process:
    """One life of a process, from its start to its stop or death."""

    def __init__(
        self,
        name: str,
        server: Server,
        version: Mapping[str, Spec],
        record: Callable[[Record], None],
        setting: Setting,
        *,
        lease: timedelta,
        drift: float,
        skew: int,
    ) -> None:
        world = server.world
        self.name = name
        self.version = dict(version)
        self.lease_seconds = lease.total_seconds()
        self.stopping = False
        self._record = record
        self.loop = ProcessLoop(world, name, drift)
        self.loop.set_exception_handler(self._complain)
        self.door = Door(
            server, self.loop, Random(f"{setting.seed}:{name}"), setting.instant, self.watch
        )
        self.clock = SimulatedClock(self.loop, server, skew)
        self._scheduler = Scheduler(
            [injected(spec) for spec in self.version.values()],
            store=SqlStore(
                cast(Database, self.door),
                SimulatedClock(self.loop, server, 0),
                owner=name,
                lease=lease,
            ),
            clock=self.clock,
            random=seeded(f"{setting.seed}"),
            state={"stage": Stage(self.door, record)},
            grace=GRACE,
            look_every=setting.look_every,
            coalesce=timedelta(0) if setting.instant else timedelta(milliseconds=50),
        )
        terms = {spec.name: spec.terms() for spec in self.version.values()}
        record(
            Started(
                world.now,
                name,
                terms,
                lease // timedelta(microseconds=1),
                setting.look_every // timedelta(microseconds=1),
                GRACE // timedelta(microseconds=1),
                drift,
            )
        )
        self._start = self._spawn(self._scheduler.__aenter__())

    @property
    def alive(self) -> bool:
        """Whether it is there, be it frozen."""
        return self.loop.alive

    def kill(self) -> None:
        """End it, as SIGKILL does."""
        if self.alive:
            self._record(Killed(self.loop.world.now, self.name))
            self.loop.kill()

    def stop(self, then: Callable[[], None]) -> None:
        """End it, as SIGTERM does."""
        if self.stopping or not self.alive:
            return
        self.stopping = True
        self._record(Stopping(self.loop.world.now, self.name))

        def stopped(_: object) -> None:
            left = sorted(cast(Any, task.get_coro()).__qualname__ for task in self._tasks())
            if self.door.waiting:  # who asks for a run may still wait for the first look at it
                left = [name for name in left if name != "Scheduler.run"]
            left += ["timer"] * self.loop.timers + [
                "thread" for thread in self.loop.threads if thread.name == "body"
            ]
            self._record(Stopped(self.loop.world.now, self.name, tuple(left)))
            self.loop.world.after(0, self.loop.kill)
            then()

        def rest(_: object) -> None:
            self.loop.call_later(REST_SECONDS, stopped, None)

        self._start.cancel()  # a server does so that is told to end while it starts
        self._spawn(self._scheduler.stop()).add_done_callback(rest)

    def run(self, name: str) -> None:
        """Let it run the job now, as the shell does, and wait for the end."""
        self._record(Asked(self.loop.world.now, self.name, name))

        def answered(task: asyncio.Task[Any]) -> None:
            finish = None if task.cancelled() or task.exception() else task.result()
            answer = (finish.run_no, finish.outcome) if finish else (None, None)
            self._record(Answered(self.loop.world.now, self.name, name, *answer))

        self._spawn(self._scheduler.run(name)).add_done_callback(answered)

    def watch(self) -> None:
        """Unless it is held up, or waits for an answer, it must call itself healthy."""
        held_until = max(self.loop.frozen_until, self.loop.blocked_until)
        held = self.loop.world.now - held_until < SECOND or self.door.waiting
        if self.alive and not self.stopping and not held and (problem := self._scheduler.problem()):
            self._record(Problem(self.loop.world.now, self.name, problem))

    def close(self) -> None:
        """When the world is over: let nothing of it speak any more."""
        if self.alive:
            self.loop.kill()
        tasks = {task for task in _task_states if task.get_loop() is self.loop}
        tasks.update(self._tasks())  # those that were left behind are not among them
        for task in tasks:
            setattr(task, "_log_destroy_pending", False)
        for task in tasks:
            _close(task.get_coro())
            _task_states.pop(task, None)  # or AnyIO would keep it, and all of its world
        self.loop.close()

    def _tasks(self) -> list[asyncio.Task[Any]]:
        return list(asyncio.all_tasks(self.loop))

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        asyncio._set_running_loop(self.loop)
        try:
            return self.loop.create_task(work)
        finally:
            asyncio._set_running_loop(None)

    def _complain(self, _: object, context: dict[str, Any]) -> None:
        if self.alive:
            text = f"{context.get('message')}: {context.get('exception')!r}"
            self._record(Problem(self.loop.world.now, self.name, text))


def _close(coroutine: Any) -> None:
    """End what nobody steps any more. Some await once more on their way out."""
    for _ in range(5):
        try:
            coroutine.close()
        except RuntimeError:
            continue
        return
