"""The settings: each wrong value is refused by its variable's name, in one line."""

import re
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from app.db import database_at
from app.main import create_app
from app.settings import Settings, SettingsError, read_settings
from support import path_of
from support.process import SERVICE

WRONG_NUMBERS = ["five", "-1", "nan", "inf", "-inf", "1e999", "0x5", "5 s", "5,0", "\N{BLACK STAR}"]

WRONG = {
    "CRON_ENABLED": ["maybe", "2", "-1", "nan", "yes please"],
    "CRON_LEASE_SECONDS": [*WRONG_NUMBERS, "0", "2", "3.5", "3601"],
    "CRON_GRACE_SECONDS": [*WRONG_NUMBERS, "-0.001", "3600.001"],
    "CRON_THREADS": [*WRONG_NUMBERS, "0", "1.5", "1001"],
    "LOG_LEVEL": ["loud", "10", "-1", "nan", "NOTSET", "INFO,DEBUG"],
    "LOG_FORMAT": ["xml", "1", "text json", "te\nxt"],
    "DATABASE_URL": [
        "nonsense",
        " ",
        "data/app.db",
        "://",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://data/app.db",
        "sqlite://user:pw@/data/app.db",
        "sqlite:///data/app.db?mode=ro",
        "sqlite+aiosqlite:///data/app.db",
        "postgresql://",
        "postgresql://localhost",
        "postgresql://localhost/",
        "postgres://localhost:5432/?sslmode=require",
        "postgresql+psycopg://user@localhost",
        "postgresql+asyncpg:///?host=/run/postgresql",
        "postgresql+psycopg2://localhost/app",
        "postgresql+pg8000://localhost/app",
        "mysql://localhost/a\nb",
        "postgresql://localhost:port/app",
    ],
}


@pytest.mark.parametrize(
    ("variable", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_value_ends_the_process_in_one_line(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """`create_app` exits with one line, which means code 1, and it begins with the variable."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as end:
        create_app()
    assert isinstance(end.value.code, str)
    assert re.fullmatch(rf"SettingsError: {variable}\b.{{20,}}", end.value.code)


@pytest.mark.parametrize(
    ("variable", "value"),
    [(name, value) for name, values in WRONG.items() for value in values if name[:3] != "DAT"],
)
def test_the_line_shows_the_wrong_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """Quoted, so that a stray blank is seen. A level is read, and shown, in capitals."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as error:
        read_settings()
    assert str(error.value).lower().startswith(f"{variable}={value!r}: ".lower())


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:SECRET@localhost",
        "postgresql://user:SECRET@localhost:port/app",
        "postgresql://user:pass@word:SECRET@localhost",
        "postgresql://user:pass/SECRET@localhost",
        "postgresql://localhost?user=user&password=SECRET",
        "mysql://user:SECRET@localhost/app",
        "postgresql//user:SECRET@localhost/app",
        "user:SECRET@localhost",
        "sqlite+pysqlcipher://:SECRET@/data/app.db",
    ],
)
def test_no_line_shows_a_password(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Logs are read by many: wherever in the URL a password is, the line does not repeat it."""
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(SystemExit) as end:
        create_app()
    assert isinstance(end.value.code, str)
    assert end.value.code.startswith("SettingsError: DATABASE_URL: ")
    assert "SECRET" not in end.value.code


def test_the_line_names_all_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two wrong values are told at once: nobody has to start twice."""
    monkeypatch.setenv("CRON_THREADS", "0")
    monkeypatch.setenv("LOG_LEVEL", "loud")
    with pytest.raises(SettingsError, match=r"^CRON_THREADS='0': .*; LOG_LEVEL='LOUD': .*$"):
        read_settings()


def test_what_is_refused_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong value leaves no trace: not even the folder of the database is made."""
    monkeypatch.setenv("CRON_THREADS", "0")
    with pytest.raises(SystemExit):
        create_app()
    assert list(tmp_path.iterdir()) == []


def test_nothing_needs_to_be_set() -> None:
    """Without variables: a file in ./data, jobs on, a lease of 30 s, 5 s of grace, 8 threads."""
    settings = read_settings()
    assert path_of(settings) == Path("data/app.db")
    assert (settings.cron_enabled, settings.cron_seed) == (True, None)
    assert (settings.lease, settings.grace) == (timedelta(seconds=30), timedelta(seconds=5))
    assert settings.cron_threads == 8
    assert (settings.log_level, settings.log_format) == ("INFO", "text")


@pytest.mark.parametrize("variable", [name.upper() for name in Settings.model_fields])
def test_an_empty_value_counts_as_unset(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """`NAME=` in a .env file, or in Compose, leaves the default."""
    monkeypatch.setenv(variable, "")
    assert read_settings() == Settings()


@pytest.mark.parametrize(
    ("variable", "value", "read"),
    [
        ("DATABASE_URL", "sqlite:///data/other.db", "sqlite:///data/other.db"),
        ("DATABASE_URL", "sqlite:////srv/a b/é.db", "sqlite:////srv/a b/é.db"),
        ("DATABASE_URL", "postgres://ana:pw@db:5432/app", "postgres://ana:pw@db:5432/app"),
        ("DATABASE_URL", "postgresql:///app?host=/run", "postgresql:///app?host=/run"),
        ("CRON_ENABLED", "false", False),
        ("CRON_ENABLED", "0", False),
        ("CRON_ENABLED", "off", False),
        ("CRON_ENABLED", "TRUE", True),
        ("CRON_SEED", "a seed", "a seed"),
        ("CRON_SEED", "7", "7"),
        ("CRON_LEASE_SECONDS", "3", 3),
        ("CRON_LEASE_SECONDS", "3600", 3600),
        ("CRON_GRACE_SECONDS", "0", 0),
        ("CRON_GRACE_SECONDS", "0.5", 0.5),
        ("CRON_GRACE_SECONDS", "3600", 3600),
        ("CRON_THREADS", "1", 1),
        ("CRON_THREADS", "1000", 1000),
        ("LOG_LEVEL", "debug", "DEBUG"),
        ("LOG_LEVEL", "WARNING", "WARNING"),
        ("LOG_FORMAT", "json", "json"),
    ],
)
def test_a_good_value_is_read(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, read: object
) -> None:
    """Each variable sets what it says, up to its limits."""
    monkeypatch.setenv(variable, value)
    assert getattr(read_settings(), variable.lower()) == read


def test_a_file_env_is_read() -> None:
    """`.env` in the working directory says what the environment does not."""
    Path(".env").write_text("# mine\nLOG_LEVEL=debug\nexport CRON_SEED='a seed'\nCRON_THREADS=\n")
    settings = read_settings()
    assert (settings.log_level, settings.cron_seed) == ("DEBUG", "a seed")
    assert settings.cron_threads == 8


def test_the_environment_goes_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set for one start holds for it."""
    Path(".env").write_text("LOG_LEVEL=DEBUG\n")
    monkeypatch.setenv("LOG_LEVEL", "ERROR")
    assert read_settings().log_level == "ERROR"


def test_what_else_is_in_the_file_is_for_others() -> None:
    """uvicorn reads its own variables."""
    Path(".env").write_text("UVICORN_PORT=9000\nANYTHING=else\n")
    assert read_settings() == Settings()


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"CRON_THREADS=zero", r"CRON_THREADS='zero': "), (b"A=\xff", r"\.env cannot be read: ")],
    ids=["wrong", "unreadable"],
)
def test_a_file_that_will_not_do_is_refused_in_one_line(content: bytes, problem: str) -> None:
    """As a variable is that will not do."""
    Path(".env").write_bytes(content)
    with pytest.raises(SettingsError, match=f"^{problem}[^\n]*$"):
        read_settings()


def test_a_file_that_may_not_be_read_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As that of another user; root, who may read all, runs some tests."""
    Path(".env").touch()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", ".env")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(SettingsError, match=r"^\.env cannot be read: [^\n]*Permission denied"):
        read_settings()


def test_the_example_shows_the_defaults() -> None:
    """Each setting is in .env.example, and would read there as if it were not."""
    lines = (SERVICE / ".env.example").read_text("utf-8").splitlines()
    values = [line.removeprefix("# ") for line in lines if re.match(r"# [A-Z_]+=", line)]
    defaults = read_settings()
    Path(".env").write_text("\n".join(values))
    assert read_settings() == defaults
    names = {value.partition("=")[0].lower() for value in values}
    assert names == {*Settings.model_fields, "uvicorn_host", "uvicorn_port"}


def test_the_url_names_the_file() -> None:
    """After three slashes comes a path from the working directory, after four one from the root."""
    assert path_of(Settings(database_url="sqlite:///data/a.db")) == Path("data/a.db")
    assert path_of(Settings(database_url="sqlite:////srv/a b.db")) == Path("/srv/a b.db")


@pytest.mark.parametrize("option", ["sslmode=require", "ssl=require"])
@pytest.mark.parametrize(
    "form", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+asyncpg"]
)
def test_a_postgres_url_has_many_forms(
    monkeypatch: pytest.MonkeyPatch, form: str, option: str
) -> None:
    """As platforms give it, or another driver takes it: it is the same database, asked alike."""
    monkeypatch.setenv("DATABASE_URL", f"{form}://ana:p%40SECRET@db:5433/app?{option}")
    with closing(database_at(read_settings().url)) as database:
        assert database.name == "Postgres db:5433/app"
        assert database.url.render_as_string(hide_password=False) == (
            "postgresql+psycopg://ana:p%40SECRET@db:5433/app?sslmode=require"
        )
