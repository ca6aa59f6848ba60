"""The settings, from the environment and `.env`. A wrong value is refused at start, by its name."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

ENV_FILE = ".env"
"""In the working directory, for a machine's own values; the environment goes first."""


POSTGRES_DRIVERS = {"postgres", "postgresql", "postgresql+psycopg", "postgresql+asyncpg"}
"""The forms of a Postgres URL that platforms give and that people use elsewhere."""


class SettingsError(ValueError):
    """A variable has a wrong value. The message is one line: which, what it is, what is right."""


class Settings(BaseSettings):
    """Each field is read from the variable of its name in capitals, such as DATABASE_URL."""

    model_config = SettingsConfigDict(
        frozen=True,
        env_ignore_empty=True,
        env_file=ENV_FILE,
        extra="ignore",  # the file has uvicorn's variables too
    )

    database_url: str = "sqlite:///data/app.db"
    """The database. A relative path of a file is seen from the working directory."""
    cron_enabled: bool = True
    """False: this process starts no jobs by itself."""
    cron_seed: str | None = None
    """Makes all jitter repeatable. Unset: the operating system chooses."""
    cron_lease_seconds: Annotated[int, Field(ge=3, le=3600)] = 30
    """How long a run that is not heard of any more keeps others from running its job."""
    cron_grace_seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 5
    """How long runs may go on when the app stops, before they are cancelled."""
    cron_threads: Annotated[int, Field(ge=1, le=1000)] = 8
    """How many `def` jobs run at the same time."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    log_format: Literal["text", "json"] = "text"

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_capitals(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("database_url")
    @classmethod
    def _names_a_database(cls, value: str) -> str:
        # What is wrong is not repeated: a URL can hold a password, in more than one place.
        try:
            url = make_url(value)
        except (ArgumentError, ValueError):
            raise ValueError("this is not a URL, as sqlite:///data/app.db is") from None
        if url.drivername in POSTGRES_DRIVERS:
            if not url.database:
                raise ValueError("this names no database, as postgresql://host/name does")
        elif url.drivername != "sqlite":
            raise ValueError(
                f"{url.drivername} is not supported, sqlite:///data/app.db and "
                "postgresql://user:password@host/name are"
            )
        elif url.username or url.host or url.query or url.database in (None, "", ":memory:"):
            raise ValueError("this names no SQLite file, as sqlite:///data/app.db does")
        return value

    @property
    def url(self) -> URL:
        """`database_url` in its parts."""
        return make_url(self.database_url)

    @property
    def lease(self) -> timedelta:
        """`cron_lease_seconds` as a duration."""
        return timedelta(seconds=self.cron_lease_seconds)

    @property
    def grace(self) -> timedelta:
        """`cron_grace_seconds` as a duration."""
        return timedelta(seconds=self.cron_grace_seconds)


def read_settings() -> Settings:
    """The settings from the environment and `.env`. Raises SettingsError for wrong values."""
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError("; ".join(_in_a_line(problem) for problem in error.errors())) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{ENV_FILE} cannot be read: {error}") from None


def _in_a_line(problem: ErrorDetails) -> str:
    variable = str(problem["loc"][0]).upper()
    message = problem["msg"].removeprefix("Value error, ")
    value = "" if variable == "DATABASE_URL" else f"={problem['input']!r}"
    return f"{variable}{value}: {message}"
