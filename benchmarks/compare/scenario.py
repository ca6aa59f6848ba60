"""What is done to each peer, the same to all: three stories, each with a job of its own."""

import time
from pathlib import Path

from benchmarks.compare.count import Evidence
from benchmarks.compare.fleet import Fleet
from benchmarks.compare.peers import Installed, Peer
from benchmarks.compare.records import JOBS

QUIET_SECONDS = 12.0
FROZEN_SECONDS = 8.0
SETTLE_SECONDS = 4.0
AFTER_KILL_SECONDS = 8.0
AFTER_THREAD_SECONDS = 6.0

# Here it is about what a start makes of the time before, so nobody is waited for for long.
RESTART_SECONDS = 2.0

# All are down from so long before a job is due until so long after.
MARGIN_SECONDS = 1.5


def faults(peer: Peer, installed: Installed, folder: Path) -> Evidence:
    """Leave it alone; freeze a process in a body, then one between bodies; kill one; stop all."""
    with Fleet(peer, installed, folder, "tick") as fleet:
        fleet.start()
        fleet.phase("quiet")
        fleet.watch(QUIET_SECONDS)
        fleet.phase("frozen in a body")
        freeze(fleet, fleet.next_start().pid)
        fleet.phase("frozen between bodies")
        fleet.next_start()
        fleet.watch(JOBS["tick"] / 2)
        freeze(fleet, fleet.idle())
        fleet.phase("killed")
        fleet.send("kill", fleet.next_start().pid)
        fleet.watch(AFTER_KILL_SECONDS)
        fleet.phase("terminated")
        fleet.next_start()
        fleet.terminate(*fleet.processes)
    return evidence(peer, installed, fleet)


def restarts(peer: Peer, installed: Installed, folder: Path) -> Evidence:
    """Restart all soon after a run; then have all down when one is due."""
    period = JOBS["slow"]
    with Fleet(peer, installed, folder, "slow") as fleet:
        fleet.phase("started")
        fleet.start()
        fleet.first_start()
        fleet.watch(1)
        fleet.phase("restarted")
        fleet.terminate(*fleet.processes, patience=RESTART_SECONDS)
        fleet.start()
        due = fleet.first_start().monotonic + period
        fleet.watch(due - MARGIN_SECONDS - time.monotonic())
        fleet.phase("down")
        fleet.terminate(*fleet.processes, patience=RESTART_SECONDS)
        fleet.watch(due + MARGIN_SECONDS - time.monotonic())
        fleet.start()
        fleet.first_start()
        fleet.watch(MARGIN_SECONDS)
    return evidence(peer, installed, fleet)


def thread(peer: Peer, installed: Installed, folder: Path) -> Evidence:
    """Stop the process whose thread is in the middle of a body."""
    with Fleet(peer, installed, folder, "thread") as fleet:
        fleet.phase("started")
        fleet.start()
        pid = fleet.first_start().pid
        fleet.phase("terminated")
        fleet.terminate(pid)
        fleet.watch(AFTER_THREAD_SECONDS)
    return evidence(peer, installed, fleet)


def freeze(fleet: Fleet, pid: int) -> None:
    """Stop the process for a while, and let it find its way again."""
    fleet.send("stop", pid)
    fleet.watch(FROZEN_SECONDS)
    fleet.send("continue", pid)
    fleet.watch(SETTLE_SECONDS)


def evidence(peer: Peer, installed: Installed, fleet: Fleet) -> Evidence:
    """Read what has been recorded, and what the peer's own tables say."""
    told = peer.history(fleet.folder, installed) if peer.history else None
    return Evidence(fleet.events, told)
