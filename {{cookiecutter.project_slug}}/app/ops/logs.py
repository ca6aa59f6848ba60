"""The log: lines of text for people, or one JSON object a line for machines."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import cast

from app.settings import Settings

# What a line of a job carries beside its message.
FIELDS = ("job", "run_no", "outcome")

SERVER_LOGGERS = ("uvicorn", "uvicorn.access")


class TextFormatter(logging.Formatter):
    """`2026-01-01 03:00:00,123 INFO message`, with the traceback below."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")


class JsonFormatter(logging.Formatter):
    """An object of time, level, logger and message, and for a job its name, run and outcome."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {field: getattr(record, field) for field in FIELDS if hasattr(record, field)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def is_news(record: logging.LogRecord) -> bool:
    """False for a line of uvicorn's access log on a probe that went well: one comes every 5 s."""
    try:
        _, _, path, _, status = cast("tuple[object, ...]", record.args)
    except (TypeError, ValueError):
        return True
    return not (str(path).startswith("/health/") and status == 200)


def set_up_logs(settings: Settings) -> None:
    """Write the app's log to standard error, as the settings say. The root logger is left alone."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    logger = logging.getLogger("app")
    logger.handlers = [handler]
    logger.setLevel(settings.log_level)
    logging.getLogger("uvicorn.access").addFilter(is_news)
    if settings.log_format == "json":  # then the server's lines too
        for name in SERVER_LOGGERS:
            for server_handler in logging.getLogger(name).handlers:
                server_handler.setFormatter(JsonFormatter())
