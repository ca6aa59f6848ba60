"""The fence: a run writes only while it is its job's last, however long it was held up."""

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from .clock import Clock
from .database import Database
from .postgres import limit_statements
from .statement import is_postgres

T = TypeVar("T")

# The last statement of a fenced transaction. An UPDATE, because it locks the row until the commit:
# were it a SELECT, or the first statement, a claim could come between it and the commit.
FENCE = text(
    "UPDATE cron_job SET owner = owner WHERE name = :name AND run_no = :run_no AND owner = :owner"
)


class LeaseLost(Exception):
    """The run may not write any more: its lease has ended, and another run may have begun."""


class WriteTooLong(Exception):
    """A transaction was rolled back because it kept all other writers waiting for too long."""


class Fence:
    """The right of one run to write, for as long as it is its job's last.

    `budget_seconds` is what one transaction may take: while it lasts no heartbeat gets through.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        name: str,
        run_no: int,
        owner: str,
        budget_seconds: float,
    ) -> None:
        self._database = database
        self._clock = clock
        self._run = {"name": name, "run_no": run_no, "owner": owner}
        self._budget_seconds = budget_seconds
        self._began: float | None = None

    async def write(self, function: Callable[[Connection], T]) -> T:
        """Run `function(connection)` in a transaction of its own that ends with the fence.

        Raises LeaseLost or WriteTooLong, and then nothing is written.
        """
        return await self._database.write(self._fenced(function), check=self._check_budget)

    def write_here(self, function: Callable[[Connection], T]) -> T:
        """Like `write`, for `def` jobs: this thread waits for the writer's."""
        return self._database.write_here(self._fenced(function), check=self._check_budget)

    def check(self, session: Any) -> Any:
        """Raise LeaseLost unless the run is its job's last. Until the commit, no other begins.

        `session` is a session or connection of SQLAlchemy's; for an async one, await the answer.
        """
        if hasattr(session, "run_sync"):
            return session.run_sync(self.check)
        if hasattr(session, "flush"):
            session.flush()  # what the session holds back must come before the fence
        if session.execute(FENCE, self._run).rowcount == 0:
            name, run_no = self._run["name"], self._run["run_no"]
            raise LeaseLost(f"{name} run {run_no} is not the last any more; nothing is written")
        return None

    def seconds_over(self) -> float | None:
        """How long a transaction under way has taken if that is over its budget, else None."""
        if (began := self._began) is None:
            return None
        seconds = self._clock.monotonic() - began
        return seconds if seconds > self._budget_seconds else None

    def _fenced(self, function: Callable[[Connection], T]) -> Callable[[Connection], T]:
        def fenced(connection: Connection) -> T:
            self._began = self._clock.monotonic()  # now that it has the lock
            if is_postgres(connection):
                limit_statements(connection, self._budget_seconds)
            try:
                result = function(connection)
                self.check(connection)
            except OperationalError:
                self._check_budget()  # its word on a statement that was interrupted for it
                raise
            finally:
                self._began = None
            return result

        return fenced

    def _check_budget(self) -> None:
        if (seconds := self.seconds_over()) is not None:
            raise WriteTooLong(
                f"{self._run['name']} run {self._run['run_no']} wrote for {seconds:.1f} s in one "
                f"transaction: at most {self._budget_seconds:g} s are allowed, for others wait "
                "meanwhile; write less at a time"
            )
