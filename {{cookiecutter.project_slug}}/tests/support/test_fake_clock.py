"""The FakeClock is right: what a test sees after `advance` is what real time would have brought."""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from datetime import timedelta
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI
from fastapi.concurrency import run_in_threadpool
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import URL, text

from app.cron.threads import DaemonThreads
from app.db import database_at
from support import FakeClock

Call = Callable[..., Coroutine[None, None, object]]


def work() -> str:
    """Keep a thread busy long enough for a clock that does not wait to run ahead."""
    return "".join(sorted("a thread at work" * 2_000))[:1]


async def test_sleepers_wake_in_the_order_of_their_times(clock: FakeClock) -> None:
    """Each at its own moment, whoever began to sleep first."""
    woken = []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((seconds, clock.monotonic()))

    async with asyncio.TaskGroup() as group:
        for seconds in (3, 1, 2):
            group.create_task(sleeper(seconds))
        await clock.advance(seconds=3)
    assert woken == [(1, 1), (2, 2), (3, 3)]


async def test_the_shortest_sleep_takes_a_microsecond(clock: FakeClock) -> None:
    """Or who sleeps until a moment, and is rounded down to it again and again, would spin."""
    await clock.run(clock.sleep(1e-9))
    assert clock.monotonic() == 1e-6


async def test_time_stands_still_until_a_test_moves_it(clock: FakeClock) -> None:
    """Neither the wall clock nor the monotonic one moves by itself."""
    before = clock.now(), clock.monotonic()
    await asyncio.to_thread(work)
    assert (clock.now(), clock.monotonic()) == before


async def test_step_moves_the_wall_clock_alone(clock: FakeClock) -> None:
    """No time passes when a clock is set."""
    before, monotonic = clock.now(), clock.monotonic()
    clock.step(hours=-1)
    assert clock.now() == before - timedelta(hours=1)
    assert clock.monotonic() == monotonic


async def test_time_does_not_go_back(clock: FakeClock) -> None:
    """`advance` by less than nothing is a mistake in a test."""
    with pytest.raises(ValueError, match="step"):
        await clock.advance(seconds=-1)


async def test_a_body_with_many_awaits_ends_before_time_moves_on(clock: FakeClock) -> None:
    """A hundred turns of the loop take no time."""
    ends = []

    async def body() -> None:
        await clock.sleep(1)
        for _ in range(100):
            await asyncio.sleep(0)
        ends.append(clock.monotonic())

    task = asyncio.create_task(body())
    await clock.advance(seconds=10)
    assert ends == [1]
    await task


async def test_child_tasks_end_before_time_moves_on(clock: FakeClock) -> None:
    """A task group's children, and their children, belong to the moment in which they start."""
    ends = []

    async def child(depth: int) -> None:
        if depth:
            async with asyncio.TaskGroup() as group:
                group.create_task(child(depth - 1))
                group.create_task(child(depth - 1))
        ends.append(clock.monotonic())

    async def body() -> None:
        await clock.sleep(1)
        await child(5)

    task = asyncio.create_task(body())
    await clock.advance(seconds=10)
    assert ends == [1] * 63
    await task


async def test_fire_and_forget_tasks_end_before_time_moves_on(clock: FakeClock) -> None:
    """A task that nobody awaits is waited for all the same."""
    ends, tasks = [], set()

    async def forgotten() -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        ends.append(clock.monotonic())

    async def body() -> None:
        await clock.sleep(1)
        tasks.add(asyncio.create_task(forgotten()))

    tasks.add(asyncio.create_task(body()))
    await clock.advance(seconds=10)
    assert ends == [1]


async def test_a_semaphore_is_passed_on_before_time_moves_on(clock: FakeClock) -> None:
    """Of ten tasks that sleep a second, two at a time, the last ends after five seconds."""
    ends, semaphore = [], asyncio.Semaphore(2)

    async def body() -> None:
        async with semaphore:
            await clock.sleep(1)
        ends.append(clock.monotonic())

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(body())
        await clock.advance(seconds=5)
    assert ends == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


async def test_a_daemon_thread_ends_before_time_moves_on(clock: FakeClock) -> None:
    """This is where a `def` job runs."""
    ends, threads = [], DaemonThreads(2, "test")

    async def body() -> None:
        for _ in range(3):
            await clock.sleep(1)
            await asyncio.get_running_loop().run_in_executor(threads, work)
            ends.append(clock.monotonic())

    task = asyncio.create_task(body())
    await clock.advance(seconds=10)
    assert ends == [1, 2, 3]
    await task
    threads.shutdown()


@pytest.mark.parametrize("call", [run_in_threadpool, asyncio.to_thread])
async def test_a_call_in_a_pool_ends_before_time_moves_on(clock: FakeClock, call: Call) -> None:
    """AnyIO's threads and those of asyncio are waited for alike."""
    ends = []

    async def body() -> None:
        for _ in range(3):
            await clock.sleep(1)
            await call(work)
            ends.append(clock.monotonic())

    task = asyncio.create_task(body())
    await clock.advance(seconds=10)
    assert ends == [1, 2, 3]
    await task


@pytest.mark.parametrize("call", [run_in_threadpool, asyncio.to_thread])
async def test_a_thread_whose_task_was_cancelled_is_waited_for(
    clock: FakeClock, call: Call
) -> None:
    """It goes on for nobody, but it goes on: until its end no time passes."""
    begun, ends = asyncio.Event(), list[float]()
    loop = asyncio.get_running_loop()

    def work_on() -> None:
        loop.call_soon_threadsafe(begun.set)
        work()
        ends.append(clock.monotonic())

    task = asyncio.create_task(call(work_on))
    await begun.wait()
    task.cancel()
    await clock.advance(seconds=10)
    assert ends == [0]
    assert task.cancelled()


async def test_a_thread_at_a_gate_does_not_hold_time(clock: FakeClock) -> None:
    """It waits for the test, which can let time pass. Once through, it counts as at work again."""
    gate, ends = clock.gate(), list[float]()

    def wait() -> None:
        gate.wait()
        work()
        ends.append(clock.monotonic())

    task = asyncio.create_task(asyncio.to_thread(wait))
    await clock.advance(seconds=10)
    gate.open()
    await clock.advance(seconds=10)
    assert ends == [10]
    await task


async def test_calls_of_the_database_end_before_time_moves_on(clock: FakeClock, url: URL) -> None:
    """Its writer and its readers are threads of ours."""
    ends: list[tuple[int | None, float]] = []

    async def body() -> None:
        await database.write(
            lambda connection: connection.execute(text("CREATE TABLE t (x INTEGER)"))
        )
        for _ in range(3):
            await clock.sleep(1)
            await database.write(
                lambda connection: connection.execute(text("INSERT INTO t VALUES (1)"))
            )
            count = await database.read(
                lambda connection: connection.scalar(text("SELECT count(*) FROM t"))
            )
            ends.append((count, clock.monotonic()))

    with closing(database_at(url)) as database:
        task = asyncio.create_task(body())
        await clock.advance(seconds=10)
        assert ends == [(1, 1), (2, 2), (3, 3)]
        await task


async def test_a_request_to_a_def_route_ends_before_time_moves_on(clock: FakeClock) -> None:
    """With its `def` dependency and that one's teardown, each in a thread of AnyIO's."""
    ends, app = [], FastAPI()

    def dependency() -> Iterator[str]:
        yield work()
        work()
        ends.append(clock.monotonic())

    @app.get("/")
    def route(value: Annotated[str, Depends(dependency)]) -> str:
        return value + work()

    async def body() -> None:
        async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
            for _ in range(3):
                await clock.sleep(1)
                assert (await client.get("/")).status_code == 200

    task = asyncio.create_task(body())
    await clock.advance(seconds=10)
    assert ends == [1, 2, 3]
    await task


async def test_an_asyncio_timeout_round_real_input_does_not_expire(clock: FakeClock) -> None:
    """An hour of the clock is no time for a socket: its timeout is real, and the answer comes."""
    ends = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    async def body(port: int) -> None:
        await clock.sleep(1)
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello\n")
            ends.append((await reader.readline(), clock.monotonic()))
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        task = asyncio.create_task(body(server.sockets[0].getsockname()[1]))
        await clock.advance(hours=1)
        assert ends == [(b"hello\n", 1)]
        await task


async def test_an_answer_from_a_thread_is_waited_for(clock: FakeClock) -> None:
    """The peer of a real connection may be blocking code, in a thread that the loop has started."""
    ends = []

    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(connection.recv(100) + work().encode())

    async def body(server: socket.socket) -> None:
        await clock.sleep(1)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(answer, server))
            reader, writer = await asyncio.open_connection(*server.getsockname())
            writer.write(b"hello")
            ends.append((await reader.read(), clock.monotonic()))
            writer.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        task = asyncio.create_task(body(server))
        await clock.advance(hours=1)
        assert [end for _, end in ends] == [1]
        await task


async def test_a_timeout_of_the_clock_expires_in_its_time(clock: FakeClock) -> None:
    """At its very moment, and not while its block is left in time."""
    ends = []

    async def body() -> None:
        async with clock.timeout(5):
            await clock.sleep(4)
        try:
            async with clock.timeout(5):
                await asyncio.Event().wait()
        except TimeoutError:
            ends.append(clock.monotonic())

    task = asyncio.create_task(body())
    await clock.advance(seconds=8.999)
    assert not ends
    await clock.advance(seconds=1)
    assert ends == [9]
    await task


async def test_run_lets_pass_what_is_needed_and_no_more(clock: FakeClock) -> None:
    """`run` is for what must end and takes time, such as a shutdown."""
    forever = asyncio.create_task(clock.sleep(3600))

    async def body() -> str:
        async with clock.timeout(100):
            await clock.sleep(3)
        return "done"

    assert await clock.run(body()) == "done"
    assert clock.monotonic() == 3
    forever.cancel()


async def test_a_task_that_spins_is_an_error(clock: FakeClock) -> None:
    """A body that never rests would keep time from moving for ever."""

    async def spin() -> None:
        while True:  # noqa: ASYNC110 -- it spins on purpose
            await asyncio.sleep(0)

    task = asyncio.create_task(spin())
    with pytest.raises(RuntimeError, match="spins"):
        await clock.advance(seconds=1)
    task.cancel()


async def test_a_stuck_thread_is_an_error(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told what to do about it, instead of hanging."""
    monkeypatch.setattr("support.clock.REAL_SECONDS_MAX", 0.01)
    event = threading.Event()
    task = asyncio.create_task(asyncio.to_thread(event.wait))
    with pytest.raises(RuntimeError, match="gate"):
        await clock.advance(seconds=1)
    event.set()
    await task


async def test_a_clock_that_does_not_watch_the_loop_cannot_advance() -> None:
    """It could not know what is under way."""
    with pytest.raises(RuntimeError, match="with FakeClock"):
        await FakeClock().advance(seconds=1)
