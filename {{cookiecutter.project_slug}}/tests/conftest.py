"""Fixtures that every test may ask for."""

from collections.abc import AsyncIterator

import pytest_asyncio
from support import FakeClock


@pytest_asyncio.fixture
async def clock() -> AsyncIterator[FakeClock]:
    """A clock that stands at the first of January 2026 until the test moves it."""
    with FakeClock() as clock:
        yield clock
