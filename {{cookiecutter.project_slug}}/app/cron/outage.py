"""An outage of the store: told when it begins and when it is over, and how long to wait between."""

import logging

from .clock import Clock
from .store import StoreUnavailable

log = logging.getLogger(__name__)

# The rest before the second try. It doubles with each further one, up to MAX.
REST_SECONDS, REST_SECONDS_MAX = 1.0, 30.0


class Outage:
    """Knows whether the store is away. One line of log for each change."""

    # Of the outage under way, or of the last one.
    _began: float
    _tries: int

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._reason: StoreUnavailable | None = None

    def failed(self, reason: StoreUnavailable) -> float:
        """The store could not be asked. How many seconds to rest before the next try."""
        if self._reason is None:
            self._began, self._tries = self._clock.monotonic(), 0
            log.error("cron: the database is away, no job starts until it is back: %s", reason)
        self._reason = reason
        self._tries += 1
        return min(REST_SECONDS * 2.0 ** (self._tries - 1), REST_SECONDS_MAX)

    def over(self) -> None:
        """The store has answered."""
        if self._reason is not None:
            seconds = self._clock.monotonic() - self._began
            log.warning("cron: the database is back after %.0f s", seconds)
            self._reason = None

    def __str__(self) -> str:
        """Since when and why, or nothing."""
        if self._reason is None:
            return ""
        seconds = self._clock.monotonic() - self._began
        return f"the database is away for {seconds:.0f} s: {self._reason}"
