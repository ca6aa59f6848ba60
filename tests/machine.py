"""What a test needs and this machine lacks is said aloud, never passed over."""

import os
from typing import NoReturn

import pytest


def lacking(what: str, *, in_ci_too: bool = False) -> NoReturn:
    """Skip the test with this reason, which `make test` repeats at its end; in CI, fail.

    With `in_ci_too` CI skips as well: it cannot have it yet.
    """
    if os.environ.get("CI") and not in_ci_too:
        pytest.fail(what)
    pytest.skip(what)
