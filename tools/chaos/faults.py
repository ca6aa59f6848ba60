"""What is done to the service under test: to one process, to its link, to all, to the database."""
# ruff: noqa: ARG002 -- each fault is asked with what any of them needs

from abc import ABC, abstractmethod
from collections.abc import Callable
from random import Random

from tools.chaos.clocks import lacks_library
from tools.chaos.databases import Postgres, Sqlite
from tools.chaos.disks import lacks_disk
from tools.chaos.harness import LEASE_SECONDS, Fleet
from tools.chaos.links import lacks_network
from tools.chaos.records import Event

# Nothing is done to the last process that is up, or nobody would be there to run what is due.
LEFT_ALONE = 1

# The jobs whose bodies take a while.
WORK = ("quick", "thread")

# The database is away for less, and for longer.
AWAY_SECONDS = (0.5, 1.5 * LEASE_SECONDS)

# Wall clocks stand at one of these; two of them are further apart than any run of ours lasts.
CLOCK_SECONDS = (-3600.0, 0.0, 3600.0)

ALL = 0
"""Instead of a process, what is done to all of them."""


def anybody(fleet: Fleet, _: list[Event]) -> list[int]:
    """Give all who run jobs."""
    return fleet.up()


def beginners(_: Fleet, events: list[Event]) -> list[int]:
    """Give who has just begun a run that takes a while."""
    return [event.pid for event in events if event.what == "start" and event.job in WORK]


def claimers(fleet: Fleet, _: list[Event]) -> list[int]:
    """Give who has just claimed a run, and has hardly begun it."""
    return fleet.new_claims()


Aim = Callable[[Fleet, list[Event]], list[int]]


class Fault(ABC):
    """Something that is done, again and again."""

    name: str
    databases: tuple[str, ...] = ("sqlite", "postgres")
    every_seconds = 2.0
    """How long nothing else is done from then on."""

    @property
    def recorded_as(self) -> str:
        """Which of the FAULTS of the records it is."""
        return self.name

    def lacks(self) -> str | None:
        """Say what is not here that it needs."""
        return None

    def targets(self, fleet: Fleet, events: list[Event], turn: int) -> list[int]:
        """Give to whom it can be done now, the `turn`th time. `events` have just happened.

        Unless a fault says otherwise, it is done to all, when somebody is up.
        """
        return [ALL] if fleet.up() else []

    @abstractmethod
    def strike(self, fleet: Fleet, pid: int, random: Random) -> None:
        """Do it, and record it."""


class Signal(Fault):
    """One of SIGNALS, sent to a process; `aims` are to whom in turn."""

    def __init__(self, name: str, *aims: Aim) -> None:
        """Choose it."""
        self.name = name
        self.aims = aims or (anybody, beginners, claimers)

    def targets(self, fleet: Fleet, events: list[Event], turn: int) -> list[int]:
        """Give those at whom it aims now, unless it is the last that is up."""
        found, up = self.aims[turn % len(self.aims)](fleet, events), fleet.up()
        return [pid for pid in found if pid in up] if len(up) > LEFT_ALONE else []

    def strike(self, fleet: Fleet, pid: int, random: Random) -> None:
        """Send it."""
        fleet.send(self.name, pid)


class Cut(Fault):
    """The link of a group to the database is cut, and mended later."""

    name = "cut"
    databases = ("postgres",)
    every_seconds = 3.0

    def lacks(self) -> str | None:
        """Ask for a network of its own."""
        return lacks_network()

    def targets(self, fleet: Fleet, events: list[Event], turn: int) -> list[int]:
        """Give anybody, or who has just begun, if all of its group is up, and others are, too."""
        aims, up = (anybody, beginners), fleet.up()
        return [
            pid
            for pid in aims[turn % len(aims)](fleet, events)
            if (group := fleet.group_of(pid)) and pid in up
            if set(members := fleet.members(group)) <= set(up)
            if len(up) >= len(members) + LEFT_ALONE
        ]

    def strike(self, fleet: Fleet, pid: int, random: Random) -> None:
        """Cut it."""
        if group := fleet.group_of(pid):
            fleet.cut_off(group)


class Clock(Fault):
    """The wall clock is stepped: on SQLite that of the one machine, on Postgres one of several."""

    name = "clock"
    recorded_as = "step"
    every_seconds = 4.0

    def lacks(self) -> str | None:
        """Ask for a library."""
        return lacks_library()

    def targets(self, fleet: Fleet, events: list[Event], turn: int) -> list[int]:
        """Give all, or anybody."""
        return [ALL] if fleet.database.name == "sqlite" else fleet.up()

    def strike(self, fleet: Fleet, pid: int, random: Random) -> None:
        """Step it to and fro, by one hour or two."""
        group = fleet.group_of(pid) or fleet.groups[0]
        assert group.clock is not None
        others = [seconds for seconds in CLOCK_SECONDS if seconds != group.clock.seconds]
        pids = [pid] if pid == ALL else fleet.members(group)
        amount = (to := random.choice(others)) - group.clock.seconds
        for each in pids:
            fleet.record(Event("step", each, amount=amount))
        group.clock.set_to(to)


class Away(Fault):
    """The database is away for a while. It is there again long before the next time."""

    recorded_as = "away"
    every_seconds = 8.0

    def strike(self, fleet: Fleet, pid: int, random: Random) -> None:
        """Take it away, and give it back later."""
        fleet.record(Event("away", pid))
        self.begin(fleet, random)

        def end() -> None:
            self.end(fleet)
            fleet.record(Event("back", pid))

        fleet.later(random.uniform(*AWAY_SECONDS), end)

    @abstractmethod
    def begin(self, fleet: Fleet, random: Random) -> None:
        """Take it away."""

    @abstractmethod
    def end(self, fleet: Fleet) -> None:
        """Give it back."""


class Restart(Away):
    """Postgres is killed, or has crashed, and is started again."""

    name = "restart"
    databases = ("postgres",)

    def begin(self, fleet: Fleet, random: Random) -> None:
        """Kill it, or let it crash."""
        assert isinstance(fleet.database, Postgres)
        random.choice([fleet.database.kill, fleet.database.crash])()

    def end(self, fleet: Fleet) -> None:
        """Start it."""
        assert isinstance(fleet.database, Postgres)
        fleet.database.start()


class Full(Away):
    """The disk is full, until something on it is deleted."""

    name = "full"
    databases = ("sqlite",)

    def lacks(self) -> str | None:
        """Ask for a small disk."""
        return lacks_disk()

    def begin(self, fleet: Fleet, random: Random) -> None:
        """Fill it."""
        assert isinstance(fleet.database, Sqlite)
        assert fleet.database.disk is not None
        fleet.database.disk.fill()

    def end(self, fleet: Fleet) -> None:
        """Delete it."""
        assert isinstance(fleet.database, Sqlite)
        assert fleet.database.disk is not None
        fleet.database.disk.free()


class Disconnect(Fault):
    """All connections to Postgres are terminated. It lets them in again at once."""

    name = "disconnect"
    databases = ("postgres",)

    def strike(self, fleet: Fleet, pid: int, random: Random) -> None:
        """Terminate them."""
        assert isinstance(fleet.database, Postgres)
        count = fleet.database.disconnect()
        fleet.record(Event("disconnect", pid, amount=count))


KILL = Signal("kill")
# Between the last check of a lease and the first line of a body there is a moment that nobody can
# close, some 10 us: whoever is stopped in it begins when continued. Aimed at claimers, one stop in
# a hundred hits it; so none is.
STOP = Signal("stop", anybody, beginners)
TERMINATE = Signal("terminate")
CUT, CLOCK, RESTART, FULL, DISCONNECT = Cut(), Clock(), Restart(), Full(), Disconnect()

FAULTS: tuple[Fault, ...] = (KILL, STOP, TERMINATE, CUT, CLOCK, DISCONNECT, RESTART, FULL)
