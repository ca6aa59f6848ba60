"""What tests hold in their hands: a clock and chance of their own, and an app that runs on them."""

from .app import cron_app, running, scheduler_of, seconds_to_end
from .chance import fixed, noted
from .clock import FakeClock, Gate
from .databases import on_postgres, on_sqlite, outside, path_of, query
from .replicas import OPERATIONS, Replica, replica
from .server import Advance, RunJob, Runs, Service, insert_sessions, notes, served, serving

__all__ = [
    "OPERATIONS",
    "Advance",
    "FakeClock",
    "Gate",
    "Replica",
    "RunJob",
    "Runs",
    "Service",
    "cron_app",
    "fixed",
    "insert_sessions",
    "noted",
    "notes",
    "on_postgres",
    "on_sqlite",
    "outside",
    "path_of",
    "query",
    "replica",
    "running",
    "scheduler_of",
    "seconds_to_end",
    "served",
    "serving",
]
