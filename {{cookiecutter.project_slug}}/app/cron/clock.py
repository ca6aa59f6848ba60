"""Time and chance, the two things a test must be able to hold still: nothing else reads them."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random, SystemRandom
from typing import Protocol


class Clock(Protocol):
    """What the scheduler and the jobs know of time."""

    def now(self) -> datetime:
        """The wall clock, aware, in UTC. It may be stepped, forwards or back."""

    def monotonic(self) -> float:
        """Seconds since some moment. They only ever pass, whatever happens to the wall clock."""

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` of monotonic time pass."""

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """Bound an `async with` block to `seconds`, raising TimeoutError; None is no bound."""


# The monotonic clock of Linux stands still while the machine is suspended, this one does not.
_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)

# The timers of asyncio stand still with the former: so it is asked for no long sleep.
SLEEP_SECONDS_MAX = 1.0


class SystemClock:
    """The real clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        until = self.monotonic() + seconds
        while True:
            await asyncio.sleep(min(seconds, SLEEP_SECONDS_MAX))
            if (seconds := until - self.monotonic()) <= 0:
                return

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        return asyncio.timeout(seconds)


RandomSource = Callable[[str], Random]
"""A Random for each key, such as "expire_sessions:7:gap": no draw can change another one."""


def seeded(seed: str | None) -> RandomSource:
    """The source whose draws follow from `seed` and the key alone: the same on every replica, after
    every restart, whichever jobs run beside. None takes a seed from the operating system."""
    root = f"{SystemRandom().getrandbits(64)}" if seed is None else seed
    return lambda key: Random(f"{root}:{key}")
