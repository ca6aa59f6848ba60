"""The statements of the store, but for the claim's, which stand with their explanation."""

from .statement import Statement

LOOK = Statement(
    """
    SELECT job.*, run.started_at, run.outcome
    FROM batch JOIN cron_job AS job ON job.name = batch.name
    LEFT JOIN cron_run AS run ON run.name = job.name AND run.run_no = job.run_no
    """,
    batch="name",
)

# Another process may make the same row at the same moment: then it is as that one has made it.
ADD = Statement(
    """
    INSERT INTO cron_job (name, next_run_at)
    SELECT name, next_run_at FROM batch WHERE TRUE ORDER BY name
    ON CONFLICT (name) DO NOTHING
    """,
    batch="name, next_run_at",
)

SET_DUE = Statement(
    """
    UPDATE cron_job SET next_run_at = batch.next_run_at
    FROM batch WHERE cron_job.name = batch.name
    """,
    batch="name, next_run_at",
)

# Not a lease that has expired: by now another process may have decided to claim the job.
HEARTBEAT = Statement(
    """
    UPDATE cron_job
    SET lease_until = :lease_until, lease_seconds = :lease_seconds
    FROM batch
    WHERE cron_job.name = batch.name AND cron_job.run_no = batch.run_no
    AND owner = :owner AND lease_until > :now
    RETURNING cron_job.name
    """,
    batch="name, run_no",
)

# A run that is its job's last, and has neither been ended nor been taken from its owner.
OWN = Statement(
    """
    SELECT job.name, job.next_run_at FROM batch
    JOIN cron_job AS job ON job.name = batch.name AND job.run_no = batch.run_no
    WHERE job.owner = :owner
    """,
    batch="name, run_no",
)

END = Statement(
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
    batch="name, outcome, failures, next_run_at",
)

END_RUN = Statement(
    """
    UPDATE cron_run
    SET finished_at = batch.finished_at, outcome = batch.outcome, note = batch.note,
        error = batch.error
    FROM batch WHERE cron_run.name = batch.name AND cron_run.run_no = batch.run_no
    """,
    batch="name, run_no, finished_at, outcome, note, error",
)

# What became of it if it could not be ended: a claim has abandoned it, or the job was forgotten.
LOST = Statement(
    """
    SELECT batch.name FROM batch
    LEFT JOIN cron_run AS run ON run.name = batch.name AND run.run_no = batch.run_no
    WHERE run.outcome IS NULL OR run.outcome = 'abandoned' OR run.owner <> :owner
    """,
    batch="name, run_no",
)

CHECK_IN = Statement("""
    INSERT INTO cron_process (owner, started_at, seen_at, absent_from, absent_until)
    VALUES (:owner, :now, :now, :absent_from, :absent_until)
    ON CONFLICT (owner) DO UPDATE SET
        seen_at = excluded.seen_at,
        absent_from = coalesce(excluded.absent_from, cron_process.absent_from),
        absent_until = coalesce(excluded.absent_until, cron_process.absent_until)
""")

CHECK_OUT = Statement(
    "UPDATE cron_process SET seen_at = :now, stopped_at = :now WHERE owner = :owner"
)

FORGET_PROCESSES = Statement("DELETE FROM cron_process WHERE seen_at < :too_old")
