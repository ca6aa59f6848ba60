"""Your jobs: a file for each, and a line for each in JOBS."""

from .expire_sessions import expire_sessions
from .nightly_report import nightly_report

JOBS = [expire_sessions, nightly_report]
