"""What the tests of the store, the fence and the database share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cron.database import Database
from support.stores import cron_database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is."""
    return tmp_path / "app.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    """A database with the engine's tables."""
    with cron_database(path) as database:
        yield database
