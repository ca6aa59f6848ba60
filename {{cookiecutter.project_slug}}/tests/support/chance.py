"""Chance that a test decides."""

from app.cron.clock import RandomSource
from app.cron.due import Fixed


def fixed(value: float) -> RandomSource:
    """A source of chance that always draws `value`, from 0 to 1."""
    return lambda key: Fixed(value)


def noted(keys: list[str], value: float = 0.5) -> RandomSource:
    """The same, and what each draw is for is put into `keys`."""

    def random(key: str) -> Fixed:
        keys.append(key)
        return Fixed(value)

    return random
