"""Forget the sessions whose time is over."""

from app.cron import JobContext, every, job
from app.cron.cleanup import delete_in_chunks
from app.db import DatabaseDep
from app.sessions import sessions


@job(every(minutes=5))
async def expire_sessions(ctx: JobContext, db: DatabaseDep) -> str:
    """Delete the sessions whose time is over."""
    count = await delete_in_chunks(ctx, db, sessions, sessions.c.expires_at <= ctx.clock.now())
    return f"deleted {count}"
