"""Is it alive, is it ready: for the container, the load balancer and whoever is on call."""

from fastapi import APIRouter, Response, status
from fastapi.requests import HTTPConnection
from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from app.cron.database import DatabaseError, reason_of
from app.cron.scheduler import Scheduler
from app.db import DatabaseDep
from app.sessions import sessions

router = APIRouter(prefix="/health", tags=["health"])


@router.get("/live")
async def live(connection: HTTPConnection, response: Response) -> dict[str, str]:
    """503 when the process should be restarted: its jobs no longer run, though it answers."""
    scheduler: Scheduler = connection.state.scheduler
    if problem := scheduler.problem():
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
        return {"status": "failed", "cron": problem}
    return {"status": "ok", "cron": scheduler.outage() or "ok"}


@router.get("/ready")
async def ready(db: DatabaseDep, response: Response) -> dict[str, str]:
    """503 when requests should go elsewhere: the database or its schema is not there."""
    try:
        await db.read(_query_sessions)
    except (SQLAlchemyError, DatabaseError) as error:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
        return {"status": "failed", "database": reason_of(error)}
    return {"status": "ok", "database": "ok"}


def _query_sessions(connection: Connection) -> None:
    connection.execute(select(sessions).limit(1)).all()
