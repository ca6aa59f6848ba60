"""An absence: this process did not run for a while. It was stopped, or its machine slept."""

import asyncio
import logging
from contextlib import suppress
from datetime import datetime, timedelta

from .clock import Clock

log = logging.getLogger(__name__)

# Who wakes so much later than it meant to was away. A busy machine makes nobody so late.
LATE = timedelta(seconds=30)


class Absence:
    """Notices that this process wakes too late, by the wall clock. `span` is from when to when."""

    def __init__(self, clock: Clock) -> None:
        self.span: tuple[datetime, datetime] | None = None
        self._clock = clock

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for the event, but no longer than so long. True: it has become much longer."""
        planned = self._clock.now() + timedelta(seconds=seconds)
        with suppress(TimeoutError):
            async with self._clock.timeout(seconds):
                await event.wait()
        if noticed := self._clock.now() - planned > LATE:
            self.span = planned, self._clock.now()
        return noticed

    def tell(self) -> None:
        """Say in the log what has been noticed."""
        if self.span is not None:
            since, until = (f"{moment:%Y-%m-%d %H:%M:%S}" for moment in self.span)
            what = "cron: this process did not run from %s to %s UTC, or its clock was set"
            log.warning(what, since, until)
