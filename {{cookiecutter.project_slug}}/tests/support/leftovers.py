"""What a run leaves behind when it has ended."""

import gc
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Pool, event

from .watch import Watch, place

# Threads of pools, which stay: of the app, of asyncio and of AnyIO.
POOLS = ("cron-", "database-", "asyncio_", "AnyIO")


@contextmanager
def leftovers(watch: Watch, database: Path) -> Iterator[list[str]]:
    """After the block the list has what was not there before it, with the place and the remedy."""
    left: list[str] = []
    out: dict[int, tuple[Any, str]] = {}  # held, or the garbage collector would give them back

    def check_out(_: Any, record: Any, connection: Any) -> None:
        out[id(record)] = connection, watch.here()

    def check_in(_: Any, record: Any) -> None:
        out.pop(id(record), None)

    event.listen(Pool, "checkout", check_out)
    event.listen(Pool, "checkin", check_in)
    gc.freeze()  # what is garbage already is nobody's here, and need not be looked through
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield left
            gc.collect()
    finally:
        gc.unfreeze()
        event.remove(Pool, "checkout", check_out)
        event.remove(Pool, "checkin", check_in)
    for task, where in watch.started.items():
        if not task.done():
            left.append(f"a task that goes on, started at {where}: await it, or use a TaskGroup")
            task.cancel()
    left += [
        f"the thread {thread.name}, started at {where}, which goes on: wait for its end"
        for thread, where in watch.threads.items()
        if thread.is_alive() and not thread.name.startswith(POOLS)
    ]
    left += [
        f"a connection to the database, got at {where}, that was not closed: close it in a `with` "
        "block, or in the dependency after its `yield`"
        for _, where in out.values()
    ]
    if is_locked(database):
        left.append(
            "an open transaction, which keeps all others from writing: commit or roll it back in a "
            "`with` block"
        )
    for warning in caught:
        where = place(warning.filename, warning.lineno)
        if "was never awaited" in str(warning.message):
            left.append(f"a {warning.message} ({where}): write `await` before it")
        elif issubclass(warning.category, ResourceWarning):
            left.append(f"an {warning.message} ({where}): close it in a `with` block")


def is_locked(database: Path) -> bool:
    """True while somebody writes."""
    with closing(sqlite3.connect(database, timeout=0)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        connection.rollback()
        return False
