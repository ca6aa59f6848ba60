"""What is answered to a request that is wrong, or that the database cannot serve now."""

import logging
import sqlite3

from fastapi import FastAPI, Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import InternalError, OperationalError

from app.cron.database import DatabaseError, reason_of

log = logging.getLogger(__name__)

# A database that was locked may be free by then, and one that is full is not asked all the time.
RETRY_AFTER_SECONDS = 5


def add_error_handlers(app: FastAPI) -> None:
    """Let the app answer 422 and 503 in its own words. All else is a mistake of ours: 500."""
    app.add_exception_handler(RequestValidationError, _refuse)
    app.add_exception_handler(OperationalError, _put_off)
    app.add_exception_handler(InternalError, _put_off)  # Postgres: a standby, read-only
    app.add_exception_handler(DatabaseError, _put_off)


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    """What is wrong with a request, without what it said: not all of that could be sent back."""
    assert isinstance(error, RequestValidationError)
    problems = [{key: each[key] for key in ("type", "loc", "msg")} for each in error.errors()]
    return JSONResponse({"detail": problems}, status.HTTP_422_UNPROCESSABLE_CONTENT)


async def _put_off(request: Request, error: Exception) -> JSONResponse:
    """The database is away, full, locked, read-only or broken. Nothing was written."""
    if getattr(getattr(error, "orig", None), "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
        raise error  # it was asked for what it does not have: that is ours to mend
    where = f"{request.method} {request.url.path}"
    log.warning("%s: the database cannot be used: %s", where, reason_of(error))
    return JSONResponse(
        {"detail": "the database cannot be used now"},
        status.HTTP_503_SERVICE_UNAVAILABLE,
        {"Retry-After": f"{RETRY_AFTER_SECONDS}"},
    )
