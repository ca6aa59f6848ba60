"""The ends of runs that the store does not get: who waits for them hears of it."""

import asyncio
from collections.abc import Iterable

import pytest

from app.cron.ends import Ends
from app.cron.memory_store import MemoryStore
from app.cron.store import Look, StoreUnavailable
from support import FakeClock


def nobody(looks: Iterable[Look]) -> None:
    """Is told what is known of the jobs."""


async def test_who_waits_for_a_run_that_never_ends_is_told(clock: FakeClock) -> None:
    """When the app ends, and leaves it behind."""
    ends = Ends(MemoryStore(clock), nobody)
    end = ends.of("tick")
    ends.give_up()
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
