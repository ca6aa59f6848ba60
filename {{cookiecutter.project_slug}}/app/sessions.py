"""The example domain: sessions that expire. Replace it with yours."""

from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, HTTPException, status
from fastapi.requests import HTTPConnection
from pydantic import BaseModel, Field
from sqlalchemy import Column, Index, String, Table, delete, insert, select

from .cron.clock import Clock
from .db import DatabaseDep, Moment, metadata

TTL_SECONDS_MAX = 365 * 24 * 60 * 60

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("user", String(200), nullable=False),
    Column("expires_at", Moment, nullable=False),
    Index("sessions_expires_at", "expires_at"),
)

router = APIRouter(prefix="/sessions", tags=["sessions"])


class NewSession(BaseModel):
    """What a client sends."""

    user: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
    ttl_seconds: Annotated[int, Field(strict=True, ge=1, le=TTL_SECONDS_MAX)]


class Session(BaseModel):
    """What a client gets."""

    id: str
    user: str
    expires_at: datetime


async def get_clock(connection: HTTPConnection) -> Clock:
    """The app's clock."""
    clock: Clock = connection.state.clock
    return clock


ClockDep = Annotated[Clock, Depends(get_clock)]


@router.post("", status_code=status.HTTP_201_CREATED)
async def create_session(new: NewSession, db: DatabaseDep, clock: ClockDep) -> Session:
    """Make a session that expires after `ttl_seconds`."""
    expires_at = clock.now() + timedelta(seconds=new.ttl_seconds)
    session = Session(id=uuid4().hex, user=new.user, expires_at=expires_at)
    statement = insert(sessions).values(session.model_dump())
    await db.write(lambda connection: connection.execute(statement))
    return session


@router.get("/{session_id:uuid}")
async def read_session(session_id: UUID, db: DatabaseDep, clock: ClockDep) -> Session:
    """The session, unless it has expired."""
    query = select(sessions).where(
        sessions.c.id == session_id.hex, sessions.c.expires_at > clock.now()
    )
    row = await db.read(lambda connection: connection.execute(query).one_or_none())
    if row is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "no such session, or it has expired")
    return Session(id=row.id, user=row.user, expires_at=row.expires_at)


@router.delete("/{session_id:uuid}", status_code=status.HTTP_204_NO_CONTENT)
async def delete_session(session_id: UUID, db: DatabaseDep) -> None:
    """End the session. Ending one that is gone already is fine."""
    statement = delete(sessions).where(sessions.c.id == session_id.hex)
    await db.write(lambda connection: connection.execute(statement))
