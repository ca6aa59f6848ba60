"""The fence: a run writes only while it is its job's last, however long it was held up."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, text

from .clock import Clock
from .database import Check, Database
from .postgres import limit_statements, limit_write
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
        self._began = list[float]()
        """When the transactions under way have begun. Jobs may have several, in several threads."""

    async def write(self, function: Callable[[Connection], T]) -> T:
        """Run `function(connection)` in a transaction of its own that ends with the fence.

        Raises LeaseLost or WriteTooLong, and then nothing is written.
        """
        fenced, check = self._fenced(function)
        return await self._database.write(fenced, check=check)

    def write_here(self, function: Callable[[Connection], T]) -> T:
        """Like `write`, for `def` jobs: this thread waits for the writer's."""
        fenced, check = self._fenced(function)
        return self._database.write_here(fenced, check=check)

    def check(self, session: Any) -> Any:
        """Raise LeaseLost unless the run is its job's last. Until the commit, no other begins.

        `session` is a session or connection of SQLAlchemy's; for an async one, await the answer.
        On Postgres the server ends it if it is then silent for 10 s.
        """
        if hasattr(session, "run_sync"):
            return session.run_sync(self.check)
        if hasattr(session, "flush"):
            session.flush()  # what the session holds back must come before the fence
            session = session.connection()
        if is_postgres(session):
            limit_write(session)  # no other run begins until it ends, and its engine is not ours
        self._hold(session)
        return None

    def seconds_over(self) -> float | None:
        """How long the longest transaction under way has taken if that is over the budget."""
        return self._over(min(list(self._began), default=math.inf))

    def _hold(self, connection: Connection) -> None:
        if connection.execute(FENCE, self._run).rowcount == 0:
            name, run_no = self._run["name"], self._run["run_no"]
            raise LeaseLost(f"{name} run {run_no} is not the last any more; nothing is written")

    def _over(self, began: float) -> float | None:
        seconds = self._clock.monotonic() - began
        return seconds if seconds > self._budget_seconds else None

    def _fenced(
        self, function: Callable[[Connection], T]
    ) -> tuple[Callable[[Connection], T], Check]:
        """The function with the fence behind it, and the check of its transaction's budget."""
        began = math.inf

        def fenced(connection: Connection) -> T:
            nonlocal began
            began = self._clock.monotonic()  # now that it has the lock
            self._began.append(began)
            try:
                if is_postgres(connection):
                    limit_statements(connection, self._budget_seconds)
                result = function(connection)
                self._hold(connection)
            finally:
                self._began.remove(began)
            return result

        def check() -> None:
            if (seconds := self._over(began)) is not None:
                raise WriteTooLong(
                    f"{self._run['name']} run {self._run['run_no']} wrote for {seconds:.1f} s in "
                    f"one transaction: at most {self._budget_seconds:g} s are allowed, for others "
                    "wait meanwhile; write less at a time"
                )

        return fenced, check
