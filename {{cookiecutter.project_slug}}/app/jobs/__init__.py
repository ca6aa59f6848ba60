"""Your jobs: a file for each, and a line for each in JOBS."""

from collections.abc import Callable

from .expire_sessions import expire_sessions
from .nightly_report import nightly_report

JOBS: list[Callable[..., object]] = [expire_sessions, nightly_report]
