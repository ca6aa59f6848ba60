"""Forget the sessions whose time is over."""

from functools import partial

from app.cron import JobContext, every, job
from app.db import DatabaseDep
from app.sessions import delete_expired

# A transaction for so many: other writers wait for a few milliseconds, not for a big delete.
BATCH = 500


@job(every(minutes=5))
async def expire_sessions(ctx: JobContext, db: DatabaseDep) -> str:
    """Delete the sessions whose time is over."""
    now, count, deleted = ctx.clock.now(), 0, BATCH
    while deleted == BATCH and not ctx.stopping:
        deleted = await db.write(partial(delete_expired, now=now, limit=BATCH))
        count += deleted
    return f"deleted {count}"
