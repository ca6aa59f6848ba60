"""Daemon threads: real ones. What must wait waits for an event, never for time."""

import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from app.cron.threads import DaemonThreads
from support.process import REAL_SECONDS_MAX

SERVICE = Path(__file__).parents[2]


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What work can wait for. In the end it is open."""
    gate = threading.Event()
    yield gate
    gate.set()


def named(name: str) -> list[threading.Thread]:
    """The living threads of the executor of that name."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(f"{name}-")]


@contextmanager
def up_to(limit: int, name: str) -> Iterator[DaemonThreads]:
    """So many threads. In the end there are none."""
    threads = DaemonThreads(limit, name)
    yield threads
    threads.shutdown()
    for thread in named(name):
        thread.join(REAL_SECONDS_MAX)
        assert not thread.is_alive()


@pytest.fixture
def one() -> Iterator[DaemonThreads]:
    """A single thread."""
    with up_to(1, "one") as threads:
        yield threads


@pytest.fixture
def two() -> Iterator[DaemonThreads]:
    """Up to two threads."""
    with up_to(2, "two") as threads:
        yield threads


def own_name() -> str:
    """The name of the thread that this runs in."""
    return threading.current_thread().name


def fail(error: BaseException) -> None:
    """Raise it."""
    raise error


# What comes back


def test_the_result_is_delivered(one: DaemonThreads) -> None:
    """What the function returned, given its arguments."""
    assert one.submit(int, "ff", base=16).result(REAL_SECONDS_MAX) == 255


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_an_error_is_delivered(one: DaemonThreads, kind: type[BaseException]) -> None:
    """The very one that was raised, of whatever kind."""
    error = kind()
    assert one.submit(fail, error).exception(REAL_SECONDS_MAX) is error


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_thread_outlives_an_error(one: DaemonThreads, kind: type[BaseException]) -> None:
    """It takes the next work, of whatever kind the error was."""
    one.submit(fail, kind()).exception(REAL_SECONDS_MAX)
    assert one.submit(own_name).result(REAL_SECONDS_MAX) == "one-1"


# Who works


def test_work_is_done_in_another_thread(one: DaemonThreads) -> None:
    """Whose name says what it belongs to."""
    assert one.submit(own_name).result(REAL_SECONDS_MAX) == "one-1"


def test_the_threads_are_daemons(one: DaemonThreads) -> None:
    """The interpreter does not wait for them when it ends."""
    assert one.submit(lambda: threading.current_thread().daemon).result(REAL_SECONDS_MAX)


def test_no_thread_is_started_before_there_is_work(one: DaemonThreads) -> None:
    """An app without `def` jobs has none."""
    assert named("one") == []


def test_there_are_no_more_threads_than_the_limit(
    two: DaemonThreads, gate: threading.Event
) -> None:
    """However much work waits."""
    for _ in range(5):
        two.submit(gate.wait)
    assert [thread.name for thread in named("two")] == ["two-1", "two-2"]


def test_there_are_as_many_threads_as_the_limit(two: DaemonThreads) -> None:
    """Two works that wait for each other both end."""
    barrier = threading.Barrier(2, timeout=REAL_SECONDS_MAX)
    works = [two.submit(barrier.wait) for _ in range(2)]
    assert sorted(work.result(REAL_SECONDS_MAX) for work in works) == [0, 1]


def test_after_much_work_there_are_as_many_threads(two: DaemonThreads) -> None:
    """What is over counts for nothing: two works that come later still go side by side."""
    for _ in range(5):
        two.submit(own_name).result(REAL_SECONDS_MAX)
    barrier = threading.Barrier(2, timeout=REAL_SECONDS_MAX)
    works = [two.submit(barrier.wait) for _ in range(2)]
    assert sorted(work.result(REAL_SECONDS_MAX) for work in works) == [0, 1]


def test_a_free_thread_is_used_again(two: DaemonThreads) -> None:
    """Work after work needs one thread, not two."""
    for _ in range(5):
        assert two.submit(own_name).result(REAL_SECONDS_MAX) == "two-1"


def test_a_thread_that_failed_is_used_again(two: DaemonThreads) -> None:
    """An error leaves it as free as a result does."""
    for _ in range(5):
        two.submit(fail, ValueError()).exception(REAL_SECONDS_MAX)
    assert [thread.name for thread in named("two")] == ["two-1"]


@pytest.mark.parametrize("ends", [own_name, partial(fail, ValueError())], ids=["well", "badly"])
def test_a_thread_is_free_when_its_result_arrives(
    two: DaemonThreads, gate: threading.Event, ends: Callable[[], object]
) -> None:
    """Not a moment later: what is given at once by whom that wakes needs no second thread."""

    def work() -> None:
        gate.wait(REAL_SECONDS_MAX)
        ends()

    next_work = Future[Future[str]]()
    future = two.submit(work)
    future.add_done_callback(lambda _: next_work.set_result(two.submit(own_name)))
    gate.set()
    assert next_work.result(REAL_SECONDS_MAX).result(REAL_SECONDS_MAX) == "two-1"
    assert [thread.name for thread in named("two")] == ["two-1"]


def test_work_is_taken_in_the_order_it_came(one: DaemonThreads, gate: threading.Event) -> None:
    """The first is the first, though all of it waited."""
    done: list[int] = []
    one.submit(gate.wait)
    works = [one.submit(done.append, number) for number in range(10)]
    gate.set()
    works[-1].result(REAL_SECONDS_MAX)
    assert done == list(range(10))


def test_what_goes_ahead_does_not_wait_in_line(one: DaemonThreads, gate: threading.Event) -> None:
    """It comes before all that has not begun, in the order in which it was given itself."""
    order: list[str] = []
    one.submit(gate.wait)
    work = [one.submit(order.append, name) for name in ("first", "second")]
    work += [one.ahead.submit(order.append, name) for name in ("urgent", "urgent too")]
    assert order == []
    gate.set()
    for each in work:
        each.result(REAL_SECONDS_MAX)
    assert order == ["urgent", "urgent too", "first", "second"]


def test_what_goes_ahead_is_done_by_the_same_threads(one: DaemonThreads) -> None:
    """There are none beside, so nothing is done at the same time."""
    assert one.submit(own_name).result() == one.ahead.submit(own_name).result()


def test_what_goes_ahead_has_its_arguments(one: DaemonThreads) -> None:
    """All that it was given."""
    assert one.ahead.submit(int, "ff", base=16).result(REAL_SECONDS_MAX) == 255


def test_what_goes_ahead_does_not_outlive_the_shutdown(
    one: DaemonThreads, gate: threading.Event
) -> None:
    """What was given before is done, then nothing is taken."""
    one.submit(gate.wait)
    ahead = one.ahead.submit(own_name)
    one.shutdown()
    with pytest.raises(RuntimeError, match=r"^one is closed$"):
        one.ahead.submit(own_name)
    gate.set()
    assert ahead.result(REAL_SECONDS_MAX).startswith("one-")


def test_what_work_was_given_is_let_go(one: DaemonThreads) -> None:
    """A thread that waits for more keeps nothing of it alive."""

    class Thing:
        """What a weak reference can name."""

    gone, thing = threading.Event(), Thing()
    weakref.finalize(thing, gone.set)
    one.submit(id, thing).result(REAL_SECONDS_MAX)
    del thing
    assert gone.wait(REAL_SECONDS_MAX)


# Cancelling


def test_work_that_is_cancelled_before_its_start_never_runs(
    one: DaemonThreads, gate: threading.Event
) -> None:
    """What came after it does."""
    done: list[str] = []
    one.submit(gate.wait)
    cancelled, after = one.submit(done.append, "cancelled"), one.submit(done.append, "after")
    assert cancelled.cancel()
    gate.set()
    after.result(REAL_SECONDS_MAX)
    assert done == ["after"]


def test_who_waits_for_cancelled_work_is_told(one: DaemonThreads, gate: threading.Event) -> None:
    """At once, not when its turn would have come."""
    one.submit(gate.wait)
    work = one.submit(own_name)
    work.cancel()
    with pytest.raises(CancelledError):
        work.result(0)


def test_work_that_has_begun_cannot_be_cancelled(one: DaemonThreads, gate: threading.Event) -> None:
    """Nothing ends a thread from outside."""
    begun = threading.Event()

    def work() -> bool:
        begun.set()
        return gate.wait(REAL_SECONDS_MAX)

    future = one.submit(work)
    begun.wait(REAL_SECONDS_MAX)
    assert not future.cancel()
    gate.set()
    assert future.result(REAL_SECONDS_MAX)


# The end


def test_after_the_shutdown_no_work_is_taken(one: DaemonThreads) -> None:
    """The error says what is closed."""
    one.shutdown()
    with pytest.raises(RuntimeError, match=r"^one is closed$"):
        one.submit(own_name)


def test_the_shutdown_waits_for_nobody(one: DaemonThreads, gate: threading.Event) -> None:
    """It returns while work is under way."""
    work = one.submit(gate.wait)
    one.shutdown()
    assert not work.done()


def test_what_was_given_before_the_shutdown_is_done(
    one: DaemonThreads, gate: threading.Event
) -> None:
    """Also what has not begun."""
    one.submit(gate.wait)
    work = one.submit(own_name)
    one.shutdown()
    gate.set()
    assert work.result(REAL_SECONDS_MAX) == "one-1"


def test_after_the_shutdown_the_threads_end(two: DaemonThreads) -> None:
    """All of them, once nothing is left to do."""
    barrier = threading.Barrier(2, timeout=REAL_SECONDS_MAX)
    for _ in range(2):
        two.submit(barrier.wait)
    threads = named("two")
    two.shutdown()
    for thread in threads:
        thread.join(REAL_SECONDS_MAX)
    assert [thread.is_alive() for thread in threads] == [False, False]


def test_a_second_shutdown_is_harmless(one: DaemonThreads) -> None:
    """It has nothing left to do."""
    work: Future[str] = one.submit(own_name)
    one.shutdown()
    one.shutdown()
    assert work.result(REAL_SECONDS_MAX) == "one-1"


@pytest.mark.parametrize("end", ["", "threads.shutdown(wait=True)"])
def test_a_stuck_thread_does_not_keep_the_interpreter_alive(end: str) -> None:
    """Shut down or not, the process ends, and ends well."""
    program = (
        "import threading; from app.cron.threads import DaemonThreads\n"
        "threads, begun = DaemonThreads(1, 'stuck'), threading.Event()\n"
        "threads.submit(lambda: (begun.set(), threading.Event().wait()))\n"
        f"begun.wait(); {end}"
    )
    command = [sys.executable, "-c", program]
    ended = subprocess.run(  # noqa: S603 -- our own program
        command, cwd=SERVICE, timeout=REAL_SECONDS_MAX, check=False
    )
    assert ended.returncode == 0


def test_a_thread_that_the_system_refuses_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever submits gets the error; the next one gets a thread."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads = DaemonThreads(1, "test")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            threads.submit(int)
    assert threads.submit(int).result(10) == 0
    threads.shutdown()
