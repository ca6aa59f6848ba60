"""An absence: this process did not run for a while. It was stopped, or its machine slept."""

import asyncio
import logging
from contextlib import suppress
from datetime import datetime, timedelta

from .clock import Clock
from .store import Store

log = logging.getLogger(__name__)

# Who wakes so much later than it meant to was away. A busy machine makes nobody so late.
LATE = timedelta(seconds=30)

# Others are told this often that the process is alive.
CHECK_IN_SECONDS = 60.0


class Absence:
    """Notices that this process wakes too late, by the wall clock, and tells others and the log."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._span: tuple[datetime, datetime] | None = None
        self._check_in_at = clock.monotonic()

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for the event, but no longer than so long. True: it has become much longer."""
        planned = self._clock.now() + timedelta(seconds=seconds)
        with suppress(TimeoutError):
            async with self._clock.timeout(seconds):
                await event.wait()
        if noticed := self._clock.now() - planned > LATE:
            self._span = planned, self._clock.now()
        return noticed

    async def check_in(self, *, at_once: bool) -> None:
        """Tell others that the process is alive, each minute or `at_once`, and when it was not."""
        if at_once or self._clock.monotonic() >= self._check_in_at:
            await self._store.check_in(self._span)
            self._check_in_at = self._clock.monotonic() + CHECK_IN_SECONDS

    def tell(self) -> None:
        """Say in the log what has been noticed, once."""
        span, self._span = self._span, None
        if span and self._store.lease is not None:  # or each driver would, also that of a memory
            since, until = (f"{moment:%Y-%m-%d %H:%M:%S}" for moment in span)
            what = "cron: this process did not run from %s to %s UTC, or its clock was set"
            log.warning(what, since, until)
