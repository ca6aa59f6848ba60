"""Yours: what takes the place of dependencies that reach out of a test, such as an HTTP client."""

from collections.abc import Callable
from typing import Any

OVERRIDES: dict[Callable[..., Any], Callable[..., Any]] = {}
"""Such as {get_client: FakeClient}: for the contract of jobs, and tests that take the whole app."""
