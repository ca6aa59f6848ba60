"""Chance that a test decides."""

from app.cron.clock import RandomSource
from app.cron.due import Fixed


def fixed(value: float) -> RandomSource:
    """A source of chance that always draws `value`, from 0 to 1."""
    return lambda key: Fixed(value)
