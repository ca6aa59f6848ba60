"""The loop of the blog post, in the lifespan: cancelled and awaited at shutdown. No jitter."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI

from benchmarks.compare.apps.work import IN_THREAD, SECONDS, note, work, work_in_thread
from tools.records import with_record

NO_DUE_TIME = ""


async def loop() -> None:
    """Do the work, wait, and so on."""
    while True:
        if IN_THREAD:
            await asyncio.to_thread(work_in_thread, NO_DUE_TIME)
        else:
            await work(NO_DUE_TIME)
        await asyncio.sleep(SECONDS)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Run the loop while the app is up."""
    task = asyncio.create_task(loop())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def service() -> FastAPI:
    """Make the app."""
    return with_record(FastAPI(lifespan=lifespan), note)
