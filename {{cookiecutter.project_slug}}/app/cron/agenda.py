"""What is due next: the jobs that are not running, the earliest first."""

import heapq
from collections.abc import Callable, Container, Iterable
from datetime import timedelta

from .clock import Clock

MICROSECOND = timedelta(microseconds=1)

Entry = tuple[int, str]
"""When a job is due, and its name."""


class Agenda:
    """A heap of due times: whole microseconds of the monotonic clock, so rounding misses none."""

    def __init__(self, clock: Clock, coalesce: timedelta) -> None:
        self._clock = clock
        self._coalesce = coalesce // MICROSECOND
        self._heap: list[Entry] = []
        self._waiting: list[Entry] = []

    def time(self) -> int:
        """Now, as due times count it."""
        return round(self._clock.monotonic() * 1_000_000)

    def add(self, name: str, delay: timedelta) -> None:
        """A job is due when `delay` has passed."""
        heapq.heappush(self._heap, (self.time() + delay // MICROSECOND, name))

    def put_back(self, entries: Iterable[Entry]) -> None:
        """What was taken is as due as before."""
        for entry in entries:
            heapq.heappush(self._heap, entry)

    def drop(self, names: Container[str]) -> None:
        """Forget when these jobs are due."""
        self._waiting = [entry for entry in self._waiting if entry[1] not in names]
        self._heap = [entry for entry in self._heap if entry[1] not in names]
        heapq.heapify(self._heap)

    def delays(self) -> dict[str, timedelta]:
        """In how long each job is due that has a due time."""
        now = self.time()
        return {name: (due - now) * MICROSECOND for due, name in (*self._heap, *self._waiting)}

    def next(self) -> tuple[str, timedelta] | None:
        """The job that is due next, and in how long."""
        if not self._heap:
            return None
        due, name = self._heap[0]
        return name, max(0, due - self.time()) * MICROSECOND

    def wake_at(self, limit: int) -> int:
        """When to take what is due: at once, or a little later if more is due until then."""
        if not self._heap:
            return limit
        first = self._heap[0][0]
        if any(due <= first + self._coalesce for due, _ in self._heap[1:3]):
            first += self._coalesce
        return min(first, limit)

    def take_due(self, may_start: Callable[[str], bool]) -> list[Entry]:
        """What is due now. What may not start yet waits until `retry_waiting`."""
        now, due = self.time(), list[Entry]()
        while self._heap and self._heap[0][0] <= now:
            entry = heapq.heappop(self._heap)
            (due if may_start(entry[1]) else self._waiting).append(entry)
        return due

    def retry_waiting(self) -> None:
        """What waited is due again."""
        self.put_back(self._waiting)
        self._waiting = []
