"""What the tests of the whole service share."""

import pytest

from app.db import PLATFORMS


@pytest.fixture(autouse=True)
def only_own_settings(no_settings: None) -> None:
    """No test of the service depends on who runs it."""


@pytest.fixture(autouse=True)
def one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test of the service depends on where it runs."""
    for variable in PLATFORMS:
        monkeypatch.delenv(variable, raising=False)
