"""One seed: processes, what goes wrong with them, and what the operator does."""

import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from random import Random
from typing import Any

from app.cron.records import Records

from .faults import FAULTS
from .history import Body, Fault, Healed, JobChanged, Record, RunChanged
from .jobs import KINDS, Spec
from .loop import SECOND, World
from .processes import Process, Setting, moment
from .server import Server

HOUR = 3600 * SECOND

HOURS = 6

# Nothing goes wrong any more after this part of a seed that is to heal.
HEALS_AFTER = 3.5

# From the last fault until all of its consequences are over: a freeze of ten leases, an answer.
HEALING_SECONDS = 700.0

JOBS = 6

WATCH_SECONDS = 97.0

LEASES = (30, 60, 90)

# Days on which the clocks in Madrid change, and one on which they do not.
DAYS = [datetime(2026, *day, 21, tzinfo=UTC) for day in ((3, 28), (10, 24), (6, 1))]

GHOST = "INSERT INTO cron_job (name, next_run_at) VALUES ('unknown-to-all', 1)"


@dataclass(frozen=True)
class Result:
    """What came of a seed."""

    seed: int
    history: list[Record]
    end: int

    def draw(self, key: str) -> float:
        """What the chance of all processes gives for a key."""
        return draw(self.seed, key)


def draw(seed: int, key: str) -> float:
    """The first draw of a Random that all processes would make for this key."""
    return Random(f"{seed}:{key}").random()


def dealt(seed: int) -> list[str]:
    """The kinds of a seed's jobs: eight seeds in a row have each kind three times."""
    kinds = sorted(KINDS)
    Random(seed // 8).shuffle(kinds)
    return sorted((kinds + kinds)[JOBS * seed % len(kinds) :][:JOBS])


class Simulation:
    """A world of its own for one seed. All that chance decides follows from the seed."""

    def __init__(
        self,
        seed: int,
        *,
        faults: bool = True,
        hours: float = HOURS,
        kinds: Sequence[str] = (),
        minutes: float | None = None,
    ) -> None:
        self.random = random = Random(f"simulation:{seed}")
        self.seed = seed
        self.history: list[Record] = []
        self.world = World(random)
        self.end = round(hours * HOUR)
        self.sqlite = random.random() < 0.5
        self.heals = random.random() < 0.5
        self.calm = False
        """True: nothing goes wrong any more."""
        self.server = Server(
            self.world,
            self.record,
            sqlite=self.sqlite,
            epoch=round(random.choice(DAYS).timestamp()) * SECOND,
        )
        look_every = timedelta(seconds=random.choice([60, 300, 300, 300]))
        self.setting = Setting(seed, random.random() < 0.4, look_every)
        self.processes: list[Process] = []
        self.lives = count(1)
        chosen = kinds or dealt(seed)
        self.version = {kind: Spec(kind, kind, minutes or self.minutes(kind)) for kind in chosen}
        self.due: dict[str, int] = {}
        self.armed: dict[str, list[Callable[[Process], None]]] = {}
        self.under_way: set[tuple[str, str]] = set()
        """Of which jobs a process has a run that is not known to have ended."""
        self.faults = faults
        operator: Any = Operator(self.server)
        self.records = Records(operator, operator)
        self.server.transact("operator", lambda it: it.exec_driver_sql(GHOST))

    def minutes(self, kind: str) -> float:
        """An interval for a job of this kind."""
        return self.random.choice(KINDS[kind].minutes)

    def run(self) -> Result:
        """Let it all happen."""
        log = logging.getLogger("app")
        level = log.level
        log.setLevel(logging.CRITICAL + 1)
        try:
            for _ in range((3 if self.random.random() < 0.8 else 4) if self.faults else 1):
                self.start()
            last = self.end if not self.heals else round(HEALS_AFTER * HOUR)
            if self.faults:
                jobs = sorted(self.version)
                for name, threat in FAULTS.items():
                    number = min(int(threat.jobs + self.random.random()), len(jobs))
                    for target in self.random.sample(jobs, number):
                        # Not in the last half hour: it may have to wait for a run.
                        self.world.at(
                            self.random.randint(60 * SECOND, last - HOUR // 2),
                            partial(self.plan, name, target),
                        )
                if self.heals:
                    self.world.at(last, self.heal)
            self.later(WATCH_SECONDS, self.watch)
            self.world.run(self.end)
        finally:
            history = self.history
            self.history = []
            for process in self.processes:
                process.close()
            self.server.close()
            log.setLevel(level)
        return Result(self.seed, history, self.end)

    # Processes

    def start(self) -> None:
        """A process starts, with the present version of the code."""
        random = self.random
        if sum(process.alive for process in self.processes) >= 4:
            return
        self.processes.append(
            Process(
                f"p{next(self.lives)}",
                self.server,
                self.version,
                self.record,
                self.setting,
                lease=timedelta(seconds=random.choice(LEASES)),
                drift=0.0 if self.sqlite else random.uniform(-5e-4, 5e-4),
                skew=0 if self.sqlite else random.randint(-600 * SECOND, 600 * SECOND),
            )
        )

    def alive(self) -> list[Process]:
        """The processes that are there and do not stop."""
        return [process for process in self.processes if process.alive and not process.stopping]

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Do it when so much time has passed."""
        self.world.after(seconds, call)

    def return_later(self, seconds: float) -> None:
        """Another process takes the place of one that is gone."""
        self.later(seconds, self.start)

    def heal(self) -> None:
        """Let only a core of processes live, and let nothing befall it."""
        self.calm = True
        alive = self.alive()
        core = self.random.sample(alive, self.random.randint(1, len(alive))) if alive else []
        for process in self.processes:
            if process not in core:
                process.kill()
        if not core:
            self.start()
        self.later(HEALING_SECONDS, lambda: self.record(Healed(self.world.now)))

    def watch(self) -> None:
        """Ask all for their health, every now and then."""
        for process in self.alive():
            process.watch()
        self.later(WATCH_SECONDS, self.watch)

    # Faults

    def plan(self, name: str, target: str) -> None:
        """A fault shall strike: at any time, or when a job is due, or has just been claimed."""
        if self.calm:
            return
        random = self.random
        if target not in self.version:
            target = random.choice(sorted(self.version))
        due = self.due.get(target, 0) - self.server.store_now()
        aim = random.random()
        if aim < 0.04:
            self.strike(name, "")
        elif aim < 0.2 and 0 < due < HOUR:
            early = random.choice([0.0, 0.001, 1.0])
            self.later(due / SECOND - early, lambda: self.strike(name, target))
        else:
            self.arm(name, target)

    def arm(self, name: str, target: str) -> None:
        """It shall strike the next run of the job."""
        self.armed.setdefault(target, []).append(lambda process: self.aim(name, process, target))

    def aim(self, name: str, process: Process, target: str) -> None:
        """The process has claimed the job: strike after some steps of it, or some time."""
        random = self.random

        def strike() -> None:
            if process in self.alive() and (process.name, target) in self.under_way:
                self.strike(name, target, process)
            else:  # it comes too late for this run
                self.arm(name, target)

        if random.random() < 0.5 or process.loop.fuse is not None:
            self.later(random.choice([0.0, math.exp(random.uniform(-6, 4))]), strike)
        else:
            process.loop.fuse = random.randint(0, 12), strike

    def strike(self, name: str, target: str, process: Process | None = None) -> None:
        """Do it, to this process or any, unless there is none."""
        alive = self.alive()
        if alive and not self.calm:
            FAULTS[name].strike(self, process or self.random.choice(alive), target)

    def fault(self, kind: str, process: Process | None, seconds: float, target: str) -> None:
        """Tell the history of it."""
        until = self.world.now + round(seconds * SECOND)
        name = process.name if process else None
        self.record(Fault(self.world.now, kind, name, until, target))

    def operate(self, act: Coroutine[Any, Any, object]) -> None:
        """The operator does something, which takes no time."""
        with suppress(StopIteration):
            act.send(None)

    # What happens

    def record(self, record: Record) -> None:
        """Something has happened."""
        self.history.append(record)
        if isinstance(record, JobChanged) and record.new is not None:
            name, new = record.new.name, record.new
            self.due[name] = new.next_run_at
            if record.old is not None and new.run_no > record.old.run_no:
                self.under_way.add((record.by, name))
                self.fire(name, record.by)
        elif isinstance(record, RunChanged) and record.new is not None:
            self.under_way.discard((record.by, record.name))
        elif isinstance(record, Body) and record.name == "alone":
            if record.what == "begun":
                self.under_way.add((record.process, record.name))
                self.fire(record.name, record.process)
            elif record.what == "torn down":
                self.under_way.discard((record.process, record.name))

    def fire(self, name: str, owner: str) -> None:
        """A run of the job begins: what was to strike then does."""
        for process in self.processes:
            if process.name == owner:
                for strike in self.armed.pop(name, []):
                    self.later(0, partial(strike, process))

    def change(self, **specs: Spec | None) -> None:
        """The next version of the code has this job so, or not at all."""
        version = {**self.version, **specs}
        self.version = {name: spec for name, spec in version.items() if spec is not None}

    def other_minutes(self, spec: Spec) -> Spec:
        """The same job with another interval."""
        factor = self.random.choice([0.25, 0.5, 2.0])
        minutes = max(5.0, spec.minutes * factor)
        if KINDS[spec.kind].times:
            minutes = self.minutes(spec.kind)
        return replace(spec, minutes=minutes)


class Operator:
    """The operator's clock, and their way to the database, which nothing disturbs."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def now(self) -> datetime:
        return moment(self._server.store_now())

    async def write(self, function: Any, *, urgent: bool = False) -> Any:
        return self._server.transact("operator", function)
