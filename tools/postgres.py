"""The Postgres of the service's own tests, for what is outside of the service."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "{{cookiecutter.project_slug}}"))

from tests.support.postgres import (
    PostgresServer,
    postgres_database,
    postgres_server,
)

__all__ = ["PostgresServer", "postgres_database", "postgres_server"]
