"""Threads that nobody waits for when the process ends."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from itertools import count
from queue import PriorityQueue
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

AHEAD, IN_TURN, LAST = range(3)


class DaemonThreads(Executor):
    """At most `limit` daemon threads, started when needed, that take work in the order it came.

    For `loop.run_in_executor`. A ThreadPoolExecutor would do, but Python joins its threads at exit:
    one that ignores every request to stop would keep the process alive. What `ahead` is given goes
    before all that has not begun.
    """

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._work: PriorityQueue[tuple[int, int, Callable[[], None] | None]] = PriorityQueue()
        self._order = count()
        self._lock = threading.Lock()
        self._threads = 0
        self._unfinished = 0
        self._closed = False
        self.ahead: Executor = _Ahead(self)

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `function` in one of the threads. Raises RuntimeError after `shutdown`."""
        return self.submit_at(IN_TURN, partial(function, *args, **kwargs))

    def submit_at(self, place: int, call: Callable[[], T]) -> Future[T]:
        """Like `submit`; a smaller `place` goes first."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError(f"{self._name} is closed")
            if self._threads < min(self._unfinished + 1, self._limit):
                name = f"{self._name}-{self._threads + 1}"
                threading.Thread(target=self._loop, name=name, daemon=True).start()
                self._threads += 1  # not before: the system may refuse a thread
            self._unfinished += 1
            self._work.put((place, next(self._order), partial(self._run, future, call)))
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """Take no more work. The threads end when they have done what they have; nobody waits."""
        with self._lock:
            self._closed = True
            for _ in range(self._threads):
                self._work.put((LAST, next(self._order), None))

    def _loop(self) -> None:
        while work := self._work.get()[2]:
            work()
            del work  # or it would keep its arguments alive until the next

    def _run(self, future: Future[T], call: Callable[[], T]) -> None:
        if not future.set_running_or_notify_cancel():
            return self._finish()
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 -- it belongs to who awaits the future
            self._finish()
            future.set_exception(error)
        else:
            self._finish()
            future.set_result(result)

    def _finish(self) -> None:
        with self._lock:
            self._unfinished -= 1


class _Ahead(Executor):
    def __init__(self, threads: DaemonThreads) -> None:
        self._threads = threads

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return self._threads.submit_at(AHEAD, partial(function, *args, **kwargs))
