"""Replicas on one Postgres that come and go: ten at once on an empty one, three one by one."""

import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import URL, create_engine, text
from sqlalchemy.pool import NullPool

from tests.server import REAL_SECONDS_MAX, TICKING, Server, wait_until
from tools.postgres import free_port, postgres_database, postgres_server

# A run takes a while, so that a restart could cut one short.
WORKING = TICKING.replace("\n\ndef service", "\n    await ctx.clock.sleep(0.3)\n\ndef service")

REPLICAS = 10

CLIENTS = 3

# The job of TICKING is due after 0.7 to 1.3 s. A busy machine may be late by so much.
FLOOR_SECONDS, CEILING_SECONDS, SLACK_SECONDS = 0.7, 1.3, 2.0

SESSION = {"user": "ana", "ttl_seconds": 600}


@pytest.fixture(scope="module")
def postgres() -> Iterator[URL]:
    """Start a server for both tests."""
    with postgres_server() as url:
        yield url


class Replica(Server):
    """A process of the service on a port of its own."""

    def __init__(self, folder: Path, url: URL, port: str, log: str) -> None:
        """Start it."""
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(
            ["uvicorn", "service:service", "--factory", "--port", port],
            folder=folder,
            log=folder / log,
            DATABASE_URL=url.render_as_string(hide_password=False),
        )

    def ask(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Send a request, with a connection of its own."""
        url = f"{self.url}{path}"
        return httpx2.request(method, url, timeout=REAL_SECONDS_MAX, trust_env=False, **options)

    def is_ready(self) -> bool:
        """Say whether it serves."""
        try:
            return self.ask("GET", "/health/ready").status_code == 200
        except httpx2.TransportError:
            return False

    def complaints(self) -> list[str]:
        """Return what its log warns of, or worse."""
        return re.findall(r"^.*(?:WARNING|ERROR|CRITICAL|Traceback).*$", self.log, re.M)


def history(url: URL) -> list[tuple[int, int, int, str | None]]:
    """Return the runs: number, when due, when started, outcome. Times are microseconds."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        query = "SELECT run_no, due_at, started_at, outcome FROM cron_run ORDER BY run_no"
        return [(row[0], row[1], row[2], row[3]) for row in connection.execute(text(query))]


def lines(folder: Path) -> list[str]:
    """Return what the bodies have written: a line each, with the number of the run."""
    return (folder / "ticks").read_text().splitlines()


def wait_for_runs(folder: Path, count: int) -> None:
    """Wait until so many more have begun."""
    until = len(lines(folder)) + count
    wait_until(lambda: len(lines(folder)) >= until, f"{count} more runs")


def check_runs(runs: list[tuple[int, int, int, str | None]], bodies: list[str]) -> None:
    """Each due time has been claimed once, in time, and run once, and the run has ended well."""
    numbers = [number for number, *_ in runs]
    assert numbers == list(range(1, len(runs) + 1))
    assert Counter(int(line.split()[0]) for line in bodies) == Counter(numbers)
    assert {outcome for *_, outcome in runs} == {"ok"}
    assert len({due for _, due, *_ in runs}) == len(runs)
    gaps = [(two[2] - one[2]) / 1e6 for one, two in pairwise(runs)]
    assert min(gaps) >= FLOOR_SECONDS
    assert max(gaps) <= CEILING_SECONDS + SLACK_SECONDS


def test_ten_replicas_start_at_once_on_an_empty_postgres(postgres: URL, tmp_path: Path) -> None:
    """All are healthy, no log complains, and each due time is run once."""
    (tmp_path / "service.py").write_text(WORKING)
    with postgres_database(postgres) as url, ExitStack() as stack:
        replicas = [
            stack.enter_context(Replica(tmp_path, url, str(free_port()), f"{number}.log"))
            for number in range(REPLICAS)
        ]
        for replica in replicas:
            replica.wait_until(replica.is_ready)
        wait_for_runs(tmp_path, 3)
        for path in ("/health/live", "/health/ready"):
            assert {replica.ask("GET", path).status_code for replica in replicas} == {200}
        with ThreadPoolExecutor(REPLICAS) as pool:
            ends = list(pool.map(lambda replica: replica.end_by(signal.SIGINT)[0], replicas))
        assert [replica.complaints() for replica in replicas] == [[]] * REPLICAS
        assert set(ends) <= {0, -signal.SIGINT}
        check_runs(history(url), lines(tmp_path))


class Clients:
    """Make sessions and ask for them, each replica in turn, until the `with` block ends."""

    def __init__(self, replicas: list[Replica]) -> None:
        """Know whom to ask. The list changes: who is replaced there is asked no more."""
        self._replicas = replicas
        self.restarting: Replica | None = None
        """Who may refuse a connection."""
        self.made: list[str] = []
        self.wrong: list[str] = []
        self.refused = 0
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(CLIENTS)

    def __enter__(self) -> "Clients":
        """Begin."""
        self._work = [self._pool.submit(self._ask, number) for number in range(CLIENTS)]
        return self

    def __exit__(self, *_: object) -> None:
        """End, and raise what they have raised."""
        self._over.set()
        self._pool.shutdown()
        for work in self._work:
            work.result()

    def _ask(self, first: int) -> None:
        for number in cycle(range(len(self._replicas))):
            if self._over.wait(0.02):
                return
            replica = self._replicas[(first + number) % len(self._replicas)]
            may_refuse = replica is self.restarting
            try:
                made = replica.ask("POST", "/sessions", json=SESSION)
                found = replica.ask("GET", f"/sessions/{made.json()['id']}")
            except httpx2.TransportError as error:
                if may_refuse or replica is self.restarting:
                    self.refused += 1
                else:
                    self.wrong.append(repr(error))
                continue
            self.made.append(made.json()["id"])
            codes = made.status_code, found.status_code
            if codes != (201, 200):
                self.wrong.append(f"{codes} {made.text} {found.text}")


def test_three_replicas_restart_one_by_one_under_load(postgres: URL, tmp_path: Path) -> None:
    """No answer is an error, no session is lost, no due time is missed, no run is cut short."""
    (tmp_path / "service.py").write_text(WORKING)
    with postgres_database(postgres) as url, ExitStack() as stack:
        ports = [str(free_port()) for _ in range(3)]
        replicas = [
            stack.enter_context(Replica(tmp_path, url, port, f"{number}.log"))
            for number, port in enumerate(ports)
        ]
        every = list(replicas)
        for replica in replicas:
            replica.wait_until(replica.is_ready)
        began = time.time()
        with Clients(replicas) as clients:
            wait_until(lambda: len(clients.made) >= CLIENTS, "sessions are made")
            for number, port in enumerate(ports):
                clients.restarting = replicas[number]
                code, _ = replicas[number].end_by(signal.SIGTERM)
                assert code in (0, -signal.SIGTERM)
                new = stack.enter_context(Replica(tmp_path, url, port, f"{number}-new.log"))
                every.append(new)
                clients.restarting = replicas[number] = new
                new.wait_until(new.is_ready)
                clients.restarting = None
                wait_for_runs(tmp_path, 2)
        ended = time.time()
        for replica in replicas:
            replica.end_by(signal.SIGTERM)
        assert clients.wrong == []
        assert clients.refused > 0
        assert [replica.complaints() for replica in every] == [[]] * 6
        runs = history(url)
        check_runs(runs, lines(tmp_path))
        assert runs[0][2] / 1e6 < began + CEILING_SECONDS + SLACK_SECONDS
        assert runs[-1][2] / 1e6 > ended - CEILING_SECONDS - SLACK_SECONDS
        engine = create_engine(url, poolclass=NullPool)
        with engine.connect() as connection:
            kept = set(connection.execute(text("SELECT id FROM sessions")).scalars())
        assert {*clients.made} <= {str(each) for each in kept}
