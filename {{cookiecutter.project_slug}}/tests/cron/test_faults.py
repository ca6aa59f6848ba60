"""Faults: whatever a job does, its outcome is known, it runs again, and the others keep theirs."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from typing import Annotated, NoReturn

import pytest
from fastapi import Depends

from app.cron import JobContext, every, job
from app.cron.memory_store import MemoryStore
from support import FakeClock, cron_app, running

MINUTES = [0.0, 60.0, 120.0]

EACH_MINUTE = every(minutes=1, jitter=0)


class Bare(BaseException):
    """Not an Exception."""


class Nothing(Exception):
    """Is false."""

    def __bool__(self) -> bool:
        return False


class Speechless(Exception):
    """Fails when it is asked what it is."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error

    __repr__ = __str__


def raises(error: BaseException) -> Callable[[], object]:
    """A body that raises it."""

    def body() -> NoReturn:
        raise error

    return body


def returns(value: object) -> Callable[[], object]:
    """A body that returns it."""
    return lambda: value


def exits() -> NoReturn:
    """A body that ends the process, or so it believes."""
    sys.exit(3)


def recurses() -> object:
    """A body that calls itself."""
    return recurses()


FAULTS: dict[str, tuple[Callable[[], object], str, str]] = {
    "Exception": (raises(ValueError("no")), "error", "ValueError: no"),
    "KeyError": (raises(KeyError("no")), "error", "KeyError: 'no'"),
    "BaseException": (raises(Bare("no")), "error", "Bare: no"),
    "GeneratorExit": (raises(GeneratorExit()), "error", "GeneratorExit: "),
    "StopIteration": (raises(StopIteration()), "error", "raised StopIteration"),
    "StopAsyncIteration": (raises(StopAsyncIteration()), "error", "StopAsyncIteration: "),
    "TimeoutError": (raises(TimeoutError("no")), "error", "TimeoutError: no"),
    "CancelledError": (raises(asyncio.CancelledError()), "error", "CancelledError: "),
    "group": (raises(ExceptionGroup("no", [ValueError()])), "error", "ExceptionGroup: no"),
    "false error": (raises(Nothing("no")), "error", "Nothing: no"),
    "KeyboardInterrupt": (raises(KeyboardInterrupt()), "error", "KeyboardInterrupt()"),
    "exit": (exits, "error", "RuntimeError: the body raised SystemExit(3)"),
    "recursion": (recurses, "error", "RecursionError: "),
    "error without words": (raises(Speechless(ValueError())), "error", "<Speechless>"),
    "note without words": (returns(Speechless(ValueError())), "ok", "<Speechless>"),
    "note that bites": (returns(Speechless(Bare())), "ok", "<Speechless>"),
    "note of 10 MB": (returns(b"x" * 10_000_000), "ok", "b'xxx"),
    "note of odd letters": (returns("a\ud800\0\x1b[31m"), "ok", "a [31m"),
}


@pytest.mark.parametrize(("body", "outcome", "text"), FAULTS.values(), ids=FAULTS)
async def test_no_fault_of_a_job_touches_another(
    clock: FakeClock, body: Callable[[], object], outcome: str, text: str
) -> None:
    """In a thread or on the loop: it is told what came of it, it runs again, the other as ever."""
    starts: list[float] = []

    @job(EACH_MINUTE)
    async def other(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    @job(EACH_MINUTE)
    async def on_loop() -> object:
        return body()

    @job(EACH_MINUTE)
    def in_thread() -> object:
        return body()

    store = MemoryStore(clock)
    async with running(cron_app(on_loop, in_thread, other, clock=clock, store=store), clock):
        await clock.advance(minutes=2)
    assert starts == MINUTES
    for name in ("on_loop", "in_thread"):
        runs = await store.history(name)
        assert len(runs) >= len(MINUTES)
        assert {run.outcome for run in runs} == {outcome}
        assert all(text in run.error + run.note for run in runs)
        assert all(len(run.note) <= 500 for run in runs)


async def test_a_coroutine_that_nobody_awaits_touches_no_other_job(clock: FakeClock) -> None:
    """A `def` that returns one is in error, each time, and the other job runs as ever."""
    starts: list[float] = []

    async def work() -> None: ...

    @job(EACH_MINUTE)
    async def other(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    @job(EACH_MINUTE)
    def in_thread() -> object:
        return work()

    store = MemoryStore(clock)
    async with running(cron_app(in_thread, other, clock=clock, store=store), clock):
        await clock.advance(minutes=2)
    assert starts == MINUTES
    assert {run.outcome for run in await store.history("in_thread")} == {"error"}


async def test_a_job_that_hangs_touches_no_other(clock: FakeClock) -> None:
    """It is over after its timeout, here its interval, and it is tried again."""
    starts: list[float] = []

    @job(EACH_MINUTE)
    async def other(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    @job(EACH_MINUTE)
    async def hang() -> None:
        await asyncio.Event().wait()

    store = MemoryStore(clock)
    async with running(cron_app(hang, other, clock=clock, store=store), clock):
        await clock.advance(minutes=2, seconds=10)
    assert starts == MINUTES
    assert [run.outcome for run in await store.history("hang")] == ["timeout"] * 2


async def test_a_thread_that_hangs_touches_no_other_job(clock: FakeClock) -> None:
    """Its thread cannot be ended: it keeps its run, and its thread, and the other has its own."""
    starts: list[float] = []
    gate = clock.gate()

    @job(EACH_MINUTE)
    def other(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    @job(EACH_MINUTE)
    def hang() -> None:
        gate.wait()

    store = MemoryStore(clock)
    async with running(cron_app(hang, other, clock=clock, store=store), clock):
        await clock.advance(minutes=2)
        assert [run.outcome for run in await store.history("hang")] == [None]
        gate.open()
    assert starts == MINUTES
    assert [run.outcome for run in await store.history("hang")] == ["timeout"]


@pytest.mark.parametrize("body", [raises(ValueError("no")), raises(Bare("no")), exits])
async def test_a_dependency_that_fails_fails_the_run_only(
    clock: FakeClock, body: Callable[[], object]
) -> None:
    """Before the body or after it, in a thread or on the loop: an error, and the other as ever."""
    starts: list[float] = []

    async def set_up() -> object:
        return body()

    async def tear_down() -> AsyncIterator[None]:
        yield
        body()

    @job(EACH_MINUTE)
    async def other(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())

    @job(EACH_MINUTE)
    async def before(value: Annotated[object, Depends(set_up)]) -> None: ...

    @job(EACH_MINUTE)
    async def before_in_thread(value: Annotated[object, Depends(body)]) -> None: ...

    @job(EACH_MINUTE)
    async def after(value: Annotated[None, Depends(tear_down)]) -> None: ...

    store = MemoryStore(clock)
    app = cron_app(before, before_in_thread, after, other, clock=clock, store=store)
    async with running(app, clock):
        await clock.advance(minutes=2)
    assert starts == MINUTES
    for name in ("before", "before_in_thread", "after"):
        assert {run.outcome for run in await store.history(name)} == {"error"}
