"""What processes under test record in one file, and how it is read while it grows.

Imported also by apps in environments of their own: it needs nothing but FastAPI.
"""

import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

from fastapi import FastAPI

Event = TypeVar("Event")
"""A line of the file: a dataclass."""

SIGNALS = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGSTOP,
    "continue": signal.SIGCONT,
    "terminate": signal.SIGTERM,
}
"""What is sent to a process, by the name under which it is recorded."""


class Recorder(Generic[Event]):
    """Appends to the file. Each line is one write at its end, so processes do not mix lines."""

    def __init__(self, path: Path) -> None:
        """Make the file, unless it is there."""
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def __call__(self, event: Event) -> None:
        """Append the event."""
        values: Any = event
        os.write(self._file, f"{json.dumps(asdict(values))}\n".encode())


class Follower(Generic[Event]):
    """Reads the file while it grows."""

    def __init__(self, path: Path, event: Callable[..., Event]) -> None:
        """Begin before the first event."""
        self._path = path
        self._event = event
        self._read = 0

    def new(self) -> Iterator[Event]:
        """Give the events that have come since it was last asked."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                yield self._event(**json.loads(line))


def with_record(app: FastAPI, note: Callable[[str], None]) -> FastAPI:
    """Note "up" when the app is up, and "down" when its shutdown is complete."""
    lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def recorded_lifespan(app: FastAPI) -> AsyncIterator[Any]:
        async with lifespan(app) as state:
            note("up")
            yield state
        note("down")

    app.router.lifespan_context = recorded_lifespan
    return app
