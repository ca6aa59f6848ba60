"""The database of the simulation: real tables, and real statements."""

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import StaticPool

from app.cron.fence import LeaseLost
from app.cron.tables import upgrade_tables

from .history import Effect, Fault, JobChanged, Noted, Record, Row, RunChanged
from .loop import SECOND, ProcessLoop, World, this_thread

T = TypeVar("T")

MILLISECOND = 1_000

# So long after it, all who have waited for a lock work as before.
HOLD_REST_SECONDS = 10.0

# So long after it, a process that was not answered works as before.
LOST_ANSWER_SECONDS = 45

ROW = "name, next_run_at, requested_at, paused, run_no, owner, lease_until, lease_seconds, failures"

OLD, NEW = (", ".join(f"{row}.{column}" for column in ROW.split(", ")) for row in ("OLD", "NEW"))
NOTHING = ", ".join(["NULL"] * 9)

# They see every row that is changed, by whatever statement: the table, the verb, what is told.
TRIGGERS = [
    ("cron_job", "INSERT", f"saw_job({NOTHING}, {NEW})"),
    ("cron_job", "UPDATE", f"saw_job({OLD}, {NEW})"),
    ("cron_job", "DELETE", f"saw_job({OLD}, {NOTHING})"),
    ("cron_run", "INSERT", "saw_run(NEW.name, NEW.run_no, NEW.due_at, NULL, NEW.outcome)"),
    ("cron_run", "UPDATE", "saw_run(NEW.name, NEW.run_no, NEW.due_at, OLD.outcome, NEW.outcome)"),
    ("effect", "INSERT", "saw_effect(NEW.name, NEW.run_no)"),
]

WRITE_EFFECT = text("INSERT INTO effect VALUES (:name, :run_no)")


class Died(Exception):
    """The process has been killed at a statement. (SQLAlchemy gives up its connection, and with it
    this database, for what is no Exception.)"""


class Server:
    """The one database. With `sqlite` it has one writer at a time, for whom others wait."""

    def __init__(
        self, world: World, record: Callable[[Record], None], *, sqlite: bool, epoch: int
    ) -> None:
        self.world = world
        self.sqlite = sqlite
        self.epoch = epoch
        self.offset = 0
        """How far its clock is ahead of true time, in microseconds."""
        self.away_until = 0
        self.locked_until = 0
        self.holder: ProcessLoop | None = None
        self._claimed = 0, ""
        self.by = ""
        """Whose transaction it is."""
        self._record = record
        self._seen: list[tuple[Any, ...]] = []
        engine = create_engine(
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        self.connection = engine.connect()
        driver: Any = self.connection.connection.driver_connection
        self._driver = driver
        driver.create_function("saw_job", 18, self._saw(JobChanged))
        driver.create_function("saw_run", 5, self._saw(RunChanged))
        driver.create_function("saw_effect", 2, self._saw(Effect))
        driver.isolation_level = None  # transactions begin and end when we say so
        upgrade_tables(self.connection)
        driver.execute("CREATE TABLE effect (name VARCHAR, run_no BIGINT)")
        for number, (table, verb, tell) in enumerate(TRIGGERS):
            trigger = f"AFTER {verb} ON {table} BEGIN SELECT {tell}; END"
            driver.execute(f"CREATE TEMP TRIGGER saw_{number} {trigger}")

    def close(self) -> None:
        """Forget all."""
        self.connection.engine.dispose()
        self._driver.close()

    def locked(self) -> bool:
        """Whether somebody keeps all others from writing."""
        return self.holder is not None or self.locked_until > self.world.now

    def store_now(self) -> int:
        """What its clock says, in microseconds since 1970."""
        return self.epoch + self.world.now + self.offset

    def _saw(self, kind: type) -> Callable[..., None]:
        return lambda *values: self._seen.append((kind, *values))

    def transact(
        self,
        by: str,
        function: Callable[[Connection], T],
        *,
        check: Callable[[], None] | None = None,
        fails: bool = False,
    ) -> T:
        """Run it in a transaction. No time passes in it, but for `hold`."""
        self._begin(by)
        try:
            result = function(self.connection)
            if check is not None:
                check()
            if fails:
                raise unavailable("disk I/O error")
        except BaseException as error:
            if isinstance(error, LeaseLost):
                self._record(Noted(self.world.now, by, "refused"))
            self._driver.rollback()
            self._seen.clear()
            raise
        self._driver.commit()
        self._publish(by)
        return result

    def hold(self, by: str, seconds: float) -> None:
        """In a transaction that has changed nothing yet: let time pass."""
        self._driver.commit()  # or what others do meanwhile would be a part of it
        this_thread().sleep(seconds)
        self._begin(by)

    def tell_of_lost_answer(self, process: str) -> None:
        """Something is committed, and the process does not know it."""
        until = self.world.now + LOST_ANSWER_SECONDS * SECOND
        self._record(Fault(self.world.now, "answer lost", process, until))

    def tell_of_hold(self, process: str, seconds: float) -> None:
        """All others wait meanwhile, or give up and rest."""
        until = self.world.now + round((seconds + HOLD_REST_SECONDS) * SECOND)
        self._record(Fault(self.world.now, "hold", None, until, process))

    def _begin(self, by: str) -> None:
        self.by = by
        self._driver.execute("BEGIN")

    def _publish(self, by: str) -> None:
        now = self.world.now
        claimed, claimer = self._claimed
        if not self._seen:
            contested = claimer not in ("", by) and now - claimed <= MILLISECOND
            self._record(Noted(now, by, "contested" if contested else "in vain"))
        for kind, *values in self._seen:
            if kind is JobChanged:
                old, new = _row(values[:9]), _row(values[9:])
                if old and new and old.run_no < new.run_no:
                    self._claimed = now, by
                if old != new:  # the fence writes what was there
                    self._record(JobChanged(now, by, self.store_now(), old, new))
            else:
                self._record(kind(now, by, *values))
        self._seen.clear()


def _row(values: list[Any]) -> Row | None:
    if values[0] is None:
        return None
    values[3] = bool(values[3])
    return Row(*values)


def unavailable(reason: str) -> OperationalError:
    """An error of the database's driver."""
    return OperationalError("a statement", {}, Exception(reason))


def write_effect(connection: Connection, name: str, run_no: int) -> None:
    """What the body of a run leaves in the database."""
    connection.execute(WRITE_EFFECT, {"name": name, "run_no": run_no})
