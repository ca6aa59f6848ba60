"""What the tests of the store, the fence and the database share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from app.cron.database import Database
from support.databases import cron_database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is, if it is SQLite's."""
    return tmp_path / "app.db"


@pytest.fixture
def database(url: URL) -> Iterator[Database]:
    """A database with the engine's tables."""
    with cron_database(url) as database:
        yield database
