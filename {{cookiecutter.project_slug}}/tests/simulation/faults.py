"""What can go wrong, and what the operator can do. Each strikes a process, or all of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .jobs import KINDS, Spec
from .loop import SECOND
from .processes import Process

if TYPE_CHECKING:
    from .simulation import Simulation

Strike = Callable[["Simulation", Process, str], None]


def kill(world: "Simulation", process: Process, target: str) -> None:
    """SIGKILL; another process comes, soon or late."""
    world.fault("kill", process, 0, target)
    process.kill()
    world.return_later(world.random.choice([1, 30, 300, 2400]))


def kill_at_statement(world: "Simulation", process: Process, target: str) -> None:
    """SIGKILL within a transaction, which is rolled back."""

    def die() -> None:
        world.fault("kill at statement", process, 0, target)
        process.kill()
        world.return_later(30)

    number = min(world.random.choices(range(9), k=2))  # rather one of the end of the run
    process.door.kill_at_statement(number, die)


def freeze(world: "Simulation", process: Process, target: str) -> None:
    """SIGSTOP, and SIGCONT after up to ten leases."""
    seconds = process.lease_seconds * 10 * math.exp(-5 * world.random.random())
    world.fault("freeze", process, seconds, target)
    process.loop.freeze(seconds)


def block(world: "Simulation", process: Process, target: str) -> None:
    """The event loop is kept busy."""
    seconds = world.random.uniform(0.5, 90)
    world.fault("block", process, seconds, target)
    process.loop.block(seconds)


def fail_before(world: "Simulation", process: Process, target: str) -> None:
    """The next writes fail, and nothing is committed."""
    process.door.line.fails_before = world.random.randint(1, 3)
    _lasting(world, "error before commit", process, target)


def fail_after(world: "Simulation", process: Process, target: str) -> None:
    """The next writes are committed, but nobody is told."""
    process.door.line.fails_after = world.random.randint(1, 3)
    _lasting(world, "error after commit", process, target)


def _lasting(world: "Simulation", kind: str, process: Process, target: str) -> None:
    seconds = 120.0
    world.fault(kind, process, seconds, target)

    def over() -> None:
        process.door.line.fails_before = process.door.line.fails_after = 0

    world.later(seconds, over)


def slow(world: "Simulation", process: Process, target: str) -> None:
    """Each request takes up to two leases: to get there, and to come back."""
    line, seconds = process.door.line, world.random.uniform(20, 300)
    line.slow_seconds = process.lease_seconds * world.random.choice([0.5, 2])
    line.slow_until = world.world.now + round(seconds * SECOND)
    world.fault("slow", process, seconds + 4 * process.lease_seconds, target)
    if world.random.random() < 0.5:
        world.later(seconds * world.random.random(), lambda: cut(world, process, target))


def lock(world: "Simulation", process: Process, target: str) -> None:
    """Another program keeps the database locked."""
    seconds = world.random.uniform(1, 20)
    world.fault("locked", None, seconds + 10, target)
    world.server.locked_until = world.world.now + round(seconds * SECOND)


def away(world: "Simulation", process: Process, target: str) -> None:
    """The database is away."""
    seconds = world.random.uniform(1, 180)
    world.fault("away", None, seconds + 45, target)
    world.server.away_until = world.world.now + round(seconds * SECOND)


def cut(world: "Simulation", process: Process, target: str) -> None:
    """The database is away, for one process."""
    seconds = world.random.uniform(1, 180)
    world.fault("cut off", process, seconds + 45, target)
    process.door.line.cut_until = world.world.now + round(seconds * SECOND)


def step(world: "Simulation", process: Process, target: str) -> None:
    """The wall clock is set: on SQLite that of all, on Postgres that of one process."""
    seconds = world.random.choice([-1, -1, 1]) * math.exp(world.random.uniform(0, math.log(3600)))
    world.fault("clock step", None if world.sqlite else process, 0, target)
    if world.sqlite:
        world.server.offset += round(seconds * SECOND)
    else:
        process.clock.skew += round(seconds * SECOND)


def pause(world: "Simulation", process: Process, target: str) -> None:
    """The operator pauses a job, and resumes it."""
    name = _with_row(world, target)
    seconds = world.random.choice([5, 60, 1800])
    world.fault("pause", None, 0, name)
    world.operate(world.records.pause(name))
    world.later(seconds, lambda: world.operate(world.records.resume(name)))


def request(world: "Simulation", process: Process, target: str) -> None:
    """The operator asks for a run now."""
    name = _with_row(world, target)
    world.fault("request", None, 0, name)
    world.operate(world.records.request(name))
    if target and world.random.random() < 0.3:  # whoever takes over has the request to honour
        kill(world, process, target)


def _with_row(world: "Simulation", target: str) -> str:
    """The target or, if there is nothing that the operator could change, another job."""
    names = sorted(name for name, spec in world.version.items() if not spec.terms().alone)
    return target if target in names else world.random.choice(names)


def run_by_hand(world: "Simulation", process: Process, target: str) -> None:
    """The operator runs a job now, in this process, and waits for its end."""
    name = target if target in process.version else world.random.choice(sorted(process.version))
    world.fault("by hand", None, 0, name)
    process.run(name)
    if world.random.random() < 0.4:  # it is held up, and the next one is asked for meanwhile
        world.later(0.1, lambda: freeze(world, process, target))
        world.later(1, lambda: world.operate(world.records.request(name)))


def deploy(world: "Simulation", process: Process, target: str) -> None:
    """One process after the other stops, and comes back with a job more, or less."""
    if len(world.version) > 5 and world.random.random() < 0.5:
        world.change(**{world.random.choice(sorted(world.version)): None})
    elif absent := sorted(set(KINDS) - set(world.version)):
        kind = world.random.choice(absent)
        world.change(**{kind: Spec(kind, kind, world.minutes(kind))})
    _roll(world, process)


def change_interval(world: "Simulation", process: Process, target: str) -> None:
    """The same, with another interval."""
    name = target if target in world.version else world.random.choice(sorted(world.version))
    world.fault("interval", None, 0, name)
    world.change(**{name: world.other_minutes(world.version[name])})
    _roll(world, process)


def _roll(world: "Simulation", first: Process) -> None:
    rest = [process for process in world.alive() if process is not first]
    pause = world.random.choice([1, 20, 180])
    for number, process in enumerate([first, *rest]):

        def stop(process: Process = process) -> None:
            if process in world.alive():
                world.fault("deploy", process, 0, "")
                process.stop(then=lambda: world.return_later(world.random.choice([0.5, 10])))

        world.later(number * pause, stop)


@dataclass(frozen=True)
class Threat:
    """A fault, and at how many of a seed's jobs it is aimed."""

    strike: Strike
    jobs: float = 3.8


FAULTS = {
    "kill": Threat(kill),
    "kill at statement": Threat(kill_at_statement, 5.2),
    "freeze": Threat(freeze),
    "block": Threat(block),
    "error before commit": Threat(fail_before),
    "error after commit": Threat(fail_after),
    "slow": Threat(slow),
    "locked": Threat(lock),
    "away": Threat(away),
    "cut off": Threat(cut),
    "clock step": Threat(step),
    "pause": Threat(pause, 3.0),
    "request": Threat(request, 3.0),
    "by hand": Threat(run_by_hand, 3.0),
    "deploy": Threat(deploy, 0.5),
    "interval": Threat(change_interval, 3.0),
}
