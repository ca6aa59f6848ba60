"""Moments in tables: whole microseconds since 1970 in UTC, on every database."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import BigInteger, Dialect, TypeDecorator

EPOCH = datetime.fromtimestamp(0, UTC)


def to_microseconds(moment: datetime) -> int:
    """The number that stands for an aware datetime."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def to_moment(microseconds: int) -> datetime:
    """The aware datetime, in UTC, that the number stands for."""
    return EPOCH + timedelta(microseconds=microseconds)


def moment_or_none(microseconds: int | None) -> datetime | None:
    """The same of what may not have come yet."""
    return None if microseconds is None else to_moment(microseconds)


class Moment(TypeDecorator[datetime]):
    """A column of aware datetimes.

    SQLite has no type for them: as text, they would compare with a number as if always later.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else to_microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else to_moment(value)
