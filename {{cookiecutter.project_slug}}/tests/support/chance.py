"""Chance that a test decides."""

from random import Random

from app.cron.clock import RandomSource


class Draws(Random):
    """A Random whose every draw is `value`, from 0 to 1."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self._value = value

    def random(self) -> float:
        return self._value


def fixed(value: float) -> RandomSource:
    """A source of chance that always draws `value`."""
    return lambda key: Draws(value)
