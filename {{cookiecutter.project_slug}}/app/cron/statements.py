"""The statements of the store, but for the claim's, which stand with their explanation."""

from sqlalchemy import text

from .claim import with_batch

LOOK = with_batch(
    "name",
    """
    SELECT job.*, run.started_at, run.outcome
    FROM batch JOIN cron_job AS job ON job.name = batch.name
    LEFT JOIN cron_run AS run ON run.name = job.name AND run.run_no = job.run_no
    """,
)

SET_DUE = text("""
    INSERT INTO cron_job (name, next_run_at) VALUES (:name, :next_run_at)
    ON CONFLICT (name) DO UPDATE SET next_run_at = excluded.next_run_at
""")

# Not a lease that has expired: by now another process may have decided to claim the job.
HEARTBEAT = with_batch(
    "name, run_no",
    """
    UPDATE cron_job
    SET lease_until = :now + :lease_seconds * 1000000, lease_seconds = :lease_seconds
    FROM batch
    WHERE cron_job.name = batch.name AND cron_job.run_no = batch.run_no
    AND owner = :owner AND lease_until > :now
    RETURNING cron_job.name
    """,
)

# A run that is its job's last, and has neither been ended nor been taken from its owner.
OWN = with_batch(
    "name, run_no",
    """
    SELECT job.name, job.next_run_at FROM batch
    JOIN cron_job AS job ON job.name = batch.name AND job.run_no = batch.run_no
    WHERE job.owner = :owner
    """,
)

END = with_batch(
    "name, outcome, failures, next_run_at",
    """
    UPDATE cron_job
    SET owner = NULL, lease_until = NULL, lease_seconds = NULL,
        failures = batch.failures, next_run_at = batch.next_run_at,
        ok_count = ok_count + CASE outcome WHEN 'ok' THEN 1 ELSE 0 END,
        error_count = error_count + CASE outcome WHEN 'error' THEN 1 ELSE 0 END,
        timeout_count = timeout_count + CASE outcome WHEN 'timeout' THEN 1 ELSE 0 END,
        interrupted_count = interrupted_count + CASE outcome WHEN 'interrupted' THEN 1 ELSE 0 END,
        missed_count = missed_count + CASE outcome WHEN 'missed' THEN 1 ELSE 0 END
    FROM batch WHERE cron_job.name = batch.name
    """,
)

END_RUN = with_batch(
    "name, run_no, finished_at, outcome, note, error",
    """
    UPDATE cron_run
    SET finished_at = batch.finished_at, outcome = batch.outcome, note = batch.note,
        error = batch.error
    FROM batch WHERE cron_run.name = batch.name AND cron_run.run_no = batch.run_no
    """,
)

# What became of it if it could not be ended: a claim has abandoned it, or the job was forgotten.
LOST = with_batch(
    "name, run_no",
    """
    SELECT batch.name FROM batch
    LEFT JOIN cron_run AS run ON run.name = batch.name AND run.run_no = batch.run_no
    WHERE run.outcome IS NULL OR run.outcome = 'abandoned' OR run.owner <> :owner
    """,
)

CHECK_IN = text("""
    INSERT INTO cron_process (owner, started_at, seen_at, absent_from, absent_until)
    VALUES (:owner, :now, :now, :absent_from, :absent_until)
    ON CONFLICT (owner) DO UPDATE SET
        seen_at = excluded.seen_at,
        absent_from = coalesce(excluded.absent_from, absent_from),
        absent_until = coalesce(excluded.absent_until, absent_until)
""")

CHECK_OUT = text("UPDATE cron_process SET seen_at = :now, stopped_at = :now WHERE owner = :owner")

FORGET_PROCESSES = text("DELETE FROM cron_process WHERE seen_at < :too_old")
