"""The whole app in a test: its lifespan, on the test's clock."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from fastapi import FastAPI

from app.cron.clock import RandomSource, seeded
from app.cron.inject import prepare
from app.cron.memory_store import MemoryStore
from app.cron.scheduler import Scheduler

from .chance import fixed
from .clock import FakeClock


def cron_app(
    *jobs: Callable[..., Any], clock: FakeClock, random: RandomSource | None = None, **options: Any
) -> FastAPI:
    """An app that has these jobs and nothing else. `options` are the Scheduler's."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        usual: dict[str, Any] = {
            "store": MemoryStore(clock),
            "state": {},
            "coalesce": timedelta(0),
        }
        async with Scheduler(
            prepare(jobs, app),
            clock=clock,
            random=random or seeded("a test"),
            **(usual | options),
        ):
            yield

    return FastAPI(lifespan=lifespan)


def scheduler_of(*jobs: Callable[..., Any], **options: Any) -> Scheduler:
    """A scheduler of these jobs, without an app around it."""
    return Scheduler(prepare(jobs, FastAPI()), random=fixed(0), state={}, **options)


@asynccontextmanager
async def running(app: FastAPI, clock: FakeClock) -> AsyncIterator[Mapping[str, Any]]:
    """Run the app's lifespan, as a server would: in a task of its own, for as long as the block.
    Gives what the lifespan shares."""
    started, leave = asyncio.Event(), asyncio.Event()
    state = dict[str, Any]()

    async def serve() -> None:
        async with app.router.lifespan_context(app) as shared:
            state.update(shared or {})
            started.set()
            await leave.wait()

    server = asyncio.create_task(serve(), name="server")
    start = asyncio.create_task(started.wait())
    await clock.run(asyncio.wait([server, start], return_when=asyncio.FIRST_COMPLETED))
    start.cancel()
    try:
        if started.is_set():
            await clock.settle()
            yield state
    finally:
        leave.set()
        await clock.run(server)


async def seconds_to_end(clock: FakeClock, *jobs: Callable[..., Any]) -> float:
    """How long an app with these jobs takes to end, its grace being 5 s. No task may be left."""
    tasks = asyncio.all_tasks()
    async with running(cron_app(*jobs, clock=clock), clock):
        left = clock.monotonic()
    assert asyncio.all_tasks() == tasks
    return clock.monotonic() - left
