"""The store in memory: what is its alone. The contract that it keeps is in `test_store.py`."""

from datetime import timedelta

import pytest

from app.cron.memory_store import MemoryStore
from app.cron.store import HISTORY_RUNS, Store
from support import FakeClock
from support.stores import INTERVAL, NOW, after, claim, delay_of, first_in, ok

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


# A wall clock that is stepped


@pytest.fixture
def memory(clock: FakeClock) -> MemoryStore:
    """It has seen the monotonic clock since its jobs were registered."""
    return MemoryStore(clock)


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_step_leaves_a_steady_job_its_distance(
    memory: MemoryStore, clock: FakeClock, hours: int
) -> None:
    """Forwards or back, it runs when it would have run."""
    await memory.register([first_in(MINUTE)])
    clock.step(hours=hours)
    assert await delay_of(memory) == MINUTE


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_step_leaves_another_job_its_time_of_day(
    memory: MemoryStore, clock: FakeClock, hours: int
) -> None:
    """An hour forwards, three in the morning is an hour nearer; an hour back, farther."""
    await memory.register([first_in(3 * HOUR, steady=False)])
    clock.step(hours=hours)
    assert await delay_of(memory) == (3 - hours) * HOUR


async def test_a_step_back_leaves_no_job_due_too_late(
    memory: MemoryStore, clock: FakeClock
) -> None:
    """Not later than its schedule can mean, as it sees the new time."""
    await memory.register([first_in(3 * HOUR, steady=False)])
    clock.step(days=-7)
    assert await delay_of(memory) == timedelta(days=1)


@pytest.mark.parametrize("seconds", [1, -1])
async def test_a_second_is_a_step(memory: MemoryStore, clock: FakeClock, seconds: float) -> None:
    """From there on, the distance is kept."""
    await memory.register([first_in(MINUTE)])
    clock.step(seconds=seconds)
    assert await delay_of(memory) == MINUTE


@pytest.mark.parametrize("seconds", [0.999_999, -0.999_999])
async def test_less_than_a_second_is_no_step(
    memory: MemoryStore, clock: FakeClock, seconds: float
) -> None:
    """It is how a clock is disciplined: what it shows is believed."""
    await memory.register([first_in(MINUTE)])
    clock.step(seconds=seconds)
    assert await delay_of(memory) == MINUTE - timedelta(seconds=seconds)


async def test_a_step_counts_once(memory: MemoryStore, clock: FakeClock) -> None:
    """The next look finds the clock where it was left."""
    await memory.register([first_in(MINUTE)])
    clock.step(hours=1)
    assert [await delay_of(memory) for _ in range(2)] == [MINUTE, MINUTE]


async def test_small_steps_do_not_add_up(memory: MemoryStore, clock: FakeClock) -> None:
    """Each look starts anew: three corrections in three looks are no step."""
    await memory.register([first_in(MINUTE)])
    for _ in range(3):
        clock.step(seconds=0.5)
        delay = await delay_of(memory)
    assert delay == 58.5 * SECOND


async def test_a_step_while_time_passes_is_told_apart(
    memory: MemoryStore, clock: FakeClock
) -> None:
    """Ten seconds have passed, an hour has not."""
    await memory.register([first_in(MINUTE)])
    await clock.advance(seconds=10)
    clock.step(hours=1)
    assert await delay_of(memory) == 50 * SECOND


async def test_time_that_passes_is_no_step(memory: MemoryStore, clock: FakeClock) -> None:
    """However long nobody looked."""
    await memory.register([first_in(MINUTE)])
    await clock.advance(days=30)
    assert await delay_of(memory) == MINUTE - timedelta(days=30)


async def test_a_step_forwards_makes_nothing_due(memory: MemoryStore, clock: FakeClock) -> None:
    """A claim sees it too."""
    await memory.register([first_in(MINUTE)])
    clock.step(hours=1)
    assert await memory.claim([after(0)]) == []


async def test_a_step_back_puts_off_nothing(memory: MemoryStore, clock: FakeClock) -> None:
    """What is due stays due."""
    await memory.register([first_in(MINUTE)])
    await clock.advance(MINUTE)
    clock.step(hours=-1)
    assert len(await memory.claim([after(0)])) == 1


async def test_the_end_of_a_run_sees_a_step(memory: MemoryStore, clock: FakeClock) -> None:
    """The next run is as far away as before it."""
    await memory.register([first_in(NOW)])
    claimed = await claim(memory)
    clock.step(hours=1)
    ([look], _) = await memory.finish([ok(claimed)])
    assert look.delay == INTERVAL


async def test_a_registration_sees_a_step(memory: MemoryStore, clock: FakeClock) -> None:
    """The jobs that are known keep their distance, the new one has that of its schedule."""
    await memory.register([first_in(MINUTE)])
    clock.step(hours=1)
    looks = await memory.register([first_in(MINUTE), first_in(HOUR, "new")])
    assert [look.delay for look in looks] == [MINUTE, HOUR]


# What it does without


async def test_the_last_fifty_runs_are_remembered(memory: MemoryStore) -> None:
    """And no more."""
    await memory.register([first_in(NOW)])
    for run_no in range(53):
        await memory.finish([ok(await claim(memory, run_no, NOW))])
    assert HISTORY_RUNS == 50
    assert [run.run_no for run in await memory.history("tick")] == list(range(4, 54))


async def test_a_run_has_no_rival(memory: MemoryStore, clock: FakeClock) -> None:
    """So it holds for as long as it lasts, and its writes need no fence."""
    store: Store = memory
    await store.register([first_in(NOW)])
    claimed = await claim(store, delay=NOW)
    await clock.advance(days=30)
    assert await store.claim([after(1)]) == []
    assert (store.lease, store.fence(claimed)) == (None, None)


async def test_a_request_from_before_a_step_back_is_due_now(clock: FakeClock) -> None:
    """Not later, though the clock says that it has not been made yet."""
    store = MemoryStore(clock)
    await store.register([first_in(timedelta(days=1))])
    await store.request("tick")
    clock.step(hours=-1)
    assert (await claim(store)).due_at == clock.now()


async def test_a_run_in_memory_has_no_owner(memory: MemoryStore) -> None:
    """There is only this process."""
    await memory.register([first_in(NOW)])
    await claim(memory)
    assert [run.owner for run in await memory.history("tick")] == [""]
