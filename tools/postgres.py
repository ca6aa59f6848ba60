"""The Postgres of the service's own tests, and ports, for what is outside of the service."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "{{cookiecutter.project_slug}}"))

from tests.support.postgres import (
    PostgresServer,
    postgres_database,
    postgres_server,
)
from tests.support.process import free_port

__all__ = ["PostgresServer", "free_port", "postgres_database", "postgres_server"]
