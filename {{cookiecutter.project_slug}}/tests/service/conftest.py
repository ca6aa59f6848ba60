"""What the tests of the whole service share."""

import pytest


@pytest.fixture(autouse=True)
def only_own_settings(no_settings: None) -> None:
    """No test of the service depends on who runs it."""
