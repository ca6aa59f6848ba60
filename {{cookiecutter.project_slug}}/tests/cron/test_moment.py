"""Moments: as numbers, and as columns."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Column, MetaData, Table, create_engine, select
from sqlalchemy.schema import CreateTable

from app.cron.moment import Moment, to_microseconds, to_moment

MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Moments, and how many microseconds after the beginning of 1970.
MOMENTS = [
    (EPOCH, 0),
    (EPOCH + MICROSECOND, 1),
    (EPOCH - MICROSECOND, -1),
    (datetime(1969, 7, 20, 20, 17, 40, tzinfo=UTC), -14_182_940_000_000),
    # Where a float of seconds has no place for a microsecond any more.
    (datetime(2400, 1, 1, 0, 0, 0, 1, tzinfo=UTC), 13_569_465_600_000_001),
    (datetime.max.replace(tzinfo=UTC), 253_402_300_799_999_999),
    (datetime.min.replace(tzinfo=UTC), -62_135_596_800_000_000),
]


def test_a_column_of_moments_is_one_of_large_integers() -> None:
    """32 bits would end in the first hour of 1970."""
    table = Table("things", MetaData(), Column("at", Moment()))
    assert "at BIGINT" in str(CreateTable(table))


def test_a_statement_with_moments_is_compiled_once() -> None:
    """SQLAlchemy keeps it: a column may have any type."""
    table, cache = Table("things", MetaData(), Column("at", Moment())), dict[Any, Any]()
    engine = create_engine("sqlite://", execution_options={"compiled_cache": cache})
    with engine.connect() as connection:
        table.create(connection)
        cache.clear()
        for _ in range(2):
            connection.execute(select(table).where(table.c.at > EPOCH))
    engine.dispose()
    assert len(cache) == 1


@pytest.mark.parametrize(("moment", "microseconds"), MOMENTS)
def test_a_moment_is_a_number_of_microseconds(moment: datetime, microseconds: int) -> None:
    """To the last one, in both directions, from the first year to the last."""
    assert to_microseconds(moment) == microseconds
    assert to_moment(microseconds) == moment


def test_a_moment_is_the_same_in_each_zone() -> None:
    """What comes back is in UTC."""
    moment = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    assert to_microseconds(moment) == to_microseconds(datetime(2026, 1, 1, tzinfo=UTC))
    assert to_moment(to_microseconds(moment)).tzinfo is UTC


def test_a_moment_without_a_zone_is_refused() -> None:
    """Nobody could say which it is."""
    with pytest.raises(TypeError):
        to_microseconds(datetime(2026, 1, 1))  # noqa: DTZ001 -- that is what is refused


def test_a_column_keeps_moments() -> None:
    """And the lack of one; and it compares them as moments."""
    table = Table("moments", MetaData(), Column("at", Moment))
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert(), [{"at": moment} for moment, _ in MOMENTS])
        connection.execute(table.insert(), {"at": None})
        moments = sorted(moment for moment, _ in MOMENTS)
        assert list(connection.scalars(select(table.c.at).order_by("at"))) == [None, *moments]
        older = connection.scalars(select(table.c.at).where(table.c.at < EPOCH).order_by("at"))
        assert list(older) == [moment for moment in moments if moment < EPOCH]
    engine.dispose()
