"""The ends of runs that the store does not get: who waits for them hears of it."""

import asyncio
import gc
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from app.cron.ends import Ends
from app.cron.memory_store import MemoryStore
from app.cron.store import Claimed, Finish, Look, StoreUnavailable
from support import FakeClock
from support.stores import ok


def nobody(looks: Iterable[Look]) -> None:
    """Is told what is known of the jobs."""


async def test_who_waits_for_a_run_that_never_ends_is_told(clock: FakeClock) -> None:
    """When the app ends, and leaves it behind."""
    ends = Ends(MemoryStore(clock), nobody)
    end = ends.of("tick")
    ends.give_up()
    with pytest.raises(StoreUnavailable, match=r"^how the run ended is not recorded$"):
        await end


async def test_who_waits_for_an_end_that_the_store_refuses_is_told(clock: FakeClock) -> None:
    """Its row is at fault, say: it is not taken for recorded."""

    class Refusing(MemoryStore):
        async def finish(self, finishes: Sequence[Finish]) -> tuple[list[Look], set[str]]:
            raise ValueError("not this one")

    ends = Ends(Refusing(clock), nobody)
    end = ends.of("tick")
    claimed = Claimed("tick", 1, clock.now(), clock.now(), 0, requested=False, claimed_at=0)
    ends.add(ok(claimed))
    await ends.record()
    with pytest.raises(StoreUnavailable, match=r"^how the run ended is not recorded$"):
        await end


async def test_who_does_not_wait_any_more_is_not_told(clock: FakeClock) -> None:
    """A request whose client has left."""
    ends = Ends(MemoryStore(clock), nobody)
    end = ends.of("tick")
    end.cancel()
    ends.give_up()
    with pytest.raises(asyncio.CancelledError):
        await end


async def test_that_nobody_waits_for_an_end_is_no_error(clock: FakeClock) -> None:
    """asyncio complains of a failure that nobody has read. Here nobody has to."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    ends = Ends(MemoryStore(clock), nobody)
    ends.of("tick")
    ends.give_up()
    del ends
    gc.collect()
    assert complaints == []
