"""The engine: it runs the jobs. A job needs these names only, and this folder may stay closed."""

from .job import JobContext, job
from .schedule import crontab, every

__all__ = ["JobContext", "crontab", "every", "job"]
