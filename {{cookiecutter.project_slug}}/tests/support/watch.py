"""A run, looked at from outside: where it waits, what it asks of the database, and for how long."""

import asyncio
import datetime
import gc
import random
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, partial
from inspect import isasyncgen, unwrap
from pathlib import Path
from types import FrameType
from typing import Any, Self, cast
from unittest.mock import patch

from sqlalchemy import Engine, event

from app.cron.job import Function
from app.cron.run import JobRun

from .process import SERVICE

# After so much CPU time between two awaits, or in a thread, a body does not come back.
ENDLESS_SECONDS = 5.0

# So many lines a `def` body may go on for when it has been asked to stop, and has not looked.
LINES_MAX = 1_000

_in_run: ContextVar[bool] = ContextVar("_in_run", default=False)
"""True in the task of the run, and so in all tasks that it starts."""


class Endless(BaseException):
    """Raised in a body that would never come to an end."""


@dataclass(frozen=True)
class Step:
    """A moment of a run: it waits, or a statement of it begins."""

    run: JobRun
    database: Path
    number: int
    """From 1. Waits and statements are counted each for themselves."""
    place: str
    """The file and the line that it has got to."""
    statement: str = ""

    def __str__(self) -> str:
        return f"{self.place}, before {self.statement!r}" if self.statement else self.place


Look = Callable[[Step], object]


class Watch:
    """While it is entered, a run of the job is looked at wherever it waits, and in between.

    `waits` is called where a task of it waits, `states` before each of its statements, in the
    thread that executes it; never both at a time. With `traced`, a body that does not come back is
    broken off: its own lines are counted, so that costs. With `asking`, the calls by which it asks
    the machine for time or chance are noted. With `stop` it is asked to stop before it begins.
    """

    def __init__(
        self,
        function: Function,
        database: Path,
        *,
        waits: Look = lambda _: None,
        states: Look = lambda _: None,
        traced: bool = True,
        asking: bool = False,
        stop: bool = False,
    ) -> None:
        self.run: JobRun | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the run is, whether that has been recorded or not."""
        self.places: list[str] = []
        """Where it waited, in order."""
        self.longest = 0.0, ""
        """The most CPU seconds between two awaits on the event loop, and from where to where."""
        self.changed = 0, ""
        """The most rows that one statement has changed, and which."""
        self.asked: list[str] = []
        """What it has asked the machine for, and where."""
        self.endless = ""
        """Where it was broken off."""
        self.started: dict[asyncio.Task[Any], str] = {}
        """The tasks that it has started, and where."""
        self.threads: dict[threading.Thread, str] = {}
        """The threads that it has started, and where."""
        self._task: asyncio.Task[Any] | None = None
        self._file = unwrap(function).__code__.co_filename
        self._database = database
        self._waits = waits
        self._states = states
        self._traced = traced
        self._asking = asking
        self._stop = stop
        self._given_up = False
        self._statements = 0
        self._lines = 0
        self._lock = threading.Lock()
        self._loop_thread = threading.get_ident()
        self._step_began = 0.0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        undo = self._stack.callback
        undo(loop.set_task_factory, loop.get_task_factory())
        loop.set_task_factory(cast(Any, self._make_task))
        for name, listener in [
            ("before_cursor_execute", self._before_statement),
            ("after_cursor_execute", self._after_statement),
        ]:
            event.listen(Engine, name, listener)
            undo(event.remove, Engine, name, listener)
        undo(threading.settrace, cast(Any, threading.gettrace()))
        undo(threading.setprofile, cast(Any, threading.getprofile()))
        if self._traced:
            threading.settrace(self._trace_call)
        if self._asking:
            threading.setprofile(self._note_call)
        self._stack.enter_context(patch("time.sleep", partial(self._sleep, time.sleep)))
        start = threading.Thread.start
        noted = lambda thread: self._start(start, thread)  # noqa: E731 -- a method, so no partial
        self._stack.enter_context(patch("threading.Thread.start", noted))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def give_up(self) -> None:
        """End the run, whatever it catches: each further line of it raises Endless."""
        assert self.run is not None
        self.endless = self.endless or (self.places or ["its begin"])[-1]
        self._given_up = True
        self.run.task.cancel()

    def here(self) -> str:
        """The innermost line of the job's that has led here, or else the one that it waits at."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if self.is_own(frame.f_code.co_filename):
                return place_of(frame)
            frame = frame.f_back
        if self.run is not None and self.run.job.threaded:
            for other in sys._current_frames().values():
                frame = other
                while frame is not None:
                    if frame.f_code.co_filename == self._file:
                        return place_of(frame)
                    frame = frame.f_back
        return (self.places or ["its begin"])[-1]

    def is_own(self, file: str) -> bool:
        """True for the job's file, and for all of the app but its engine."""
        return file == self._file or _is_of_the_app(file)

    @property
    def _under_way(self) -> JobRun | None:
        return None if self._task is None or self._task.done() else self.run

    # Where it waits

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Task[Any]:
        is_run = getattr(coroutine, "cr_code", None) is JobRun._body.__code__
        if not is_run and not _in_run.get():
            return asyncio.Task(coroutine, loop=loop, **options)
        if is_run:
            self.run = coroutine.cr_frame.f_locals["self"]
        task = asyncio.Task(self._stepped(coroutine), loop=loop, **options)
        if is_run:
            self._task = task
            task.add_done_callback(lambda _: self.ended.set_result(None))
        else:
            self.started[task] = self.here()
        return task

    async def _stepped(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        assert self.run is not None
        if self._stop:
            self.run.context.request_stop()
        _in_run.set(True)
        return await _Steps(self, coroutine)

    def steps(self, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Drive a task of the run from one moment that it waits at to the next."""
        resume = partial(coroutine.send, None)
        place = "its begin"
        while True:
            before = place
            try:
                waits_for = self._resume(resume)
            except StopIteration as end:
                place = "its end"
                return end.value
            else:
                place = self._place(coroutine)
            finally:
                seconds = time.thread_time() - self._step_began
                self.longest = max(self.longest, (seconds, f"from {before} to {place}"))
            assert self.run is not None
            self.places.append(place)
            with self._lock:
                self._waits(Step(self.run, self._database, len(self.places), place))
            try:
                yield waits_for
            except BaseException as error:  # noqa: BLE001 -- it is for the coroutine
                resume = partial(coroutine.throw, error)
            else:
                resume = partial(coroutine.send, None)

    def _resume(self, resume: Callable[[], Any]) -> Any:
        trace, profile = sys.gettrace(), sys.getprofile()
        self._step_began = time.thread_time()
        if self._traced:
            sys.settrace(self._trace_call)
        if self._asking:
            sys.setprofile(self._note_call)
        try:
            return resume()
        finally:
            sys.setprofile(profile)
            sys.settrace(trace)

    def _place(self, awaited: Any) -> str:
        """Where a coroutine waits: its innermost line that is the job's, or else any."""
        found = last = ""
        while awaited is not None:
            for kind in ("cr", "gi", "ag"):
                if frame := getattr(awaited, f"{kind}_frame", None):
                    last = place_of(frame)
                    found = last if self.is_own(frame.f_code.co_filename) else found
            awaited = _awaited_by(awaited)
        return found or last

    # What it asks of the database

    def _before_statement(self, _: Any, __: Any, statement: str, *___: Any) -> None:
        run = self._under_way
        if run and "cron_" not in statement:  # those are the engine's
            with self._lock:
                self._statements += 1
                words = _shortened(statement)
                self._states(Step(run, self._database, self._statements, self.here(), words))

    def _after_statement(self, _: Any, cursor: Any, statement: str, *__: Any) -> None:
        if self._under_way:
            what = f"{self.here()}: {_shortened(statement)}"
            self.changed = max(self.changed, (cursor.rowcount, what))

    # What it does itself

    def _trace_call(self, frame: FrameType, _: str, __: Any) -> Any:
        return self._trace_line if self.is_own(frame.f_code.co_filename) else None

    def _trace_line(self, frame: FrameType, kind: str, _: Any) -> Any:
        run = self._under_way
        if kind == "line" and run is not None:
            on_loop = threading.get_ident() == self._loop_thread
            self._lines += self._stop and not on_loop and not run.context.stop_seen
            seconds = time.thread_time() - (self._step_began if on_loop else 0)
            if self._given_up or self._lines > LINES_MAX or seconds > ENDLESS_SECONDS:
                self.endless = self.endless or place_of(frame)
                raise Endless
        return self._trace_line

    def _note_call(self, frame: FrameType, kind: str, called: Any) -> None:
        caller = frame if kind == "c_call" else frame.f_back
        if (
            kind in ("call", "c_call")
            and caller is not None
            and self._under_way
            and self.is_own(caller.f_code.co_filename)
            and (name := _asked_by(frame) if kind == "call" else _asked_of(called))
        ):
            self.asked.append(f"{name} at {place_of(caller)}")

    def _start(self, start: Callable[[threading.Thread], None], thread: threading.Thread) -> None:
        if self._under_way:
            self.threads[thread] = self.here()
        start(thread)

    def _sleep(self, sleep: Callable[[float], None], seconds: float) -> None:
        """A thread may sleep. The test does not wait for it."""
        if threading.get_ident() == self._loop_thread:
            sleep(seconds)


class _Steps:
    def __init__(self, watch: Watch, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._watch = watch
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._watch.steps(self._coroutine)


def _awaited_by(awaited: Any) -> Any:
    """What it waits for, if that is Python too."""
    for name in ("cr_await", "gi_yieldfrom", "ag_await"):
        if (inner := getattr(awaited, name, None)) is not None:
            return inner
    if type(awaited).__name__.startswith("async_generator_"):  # it does not say of which
        return next(filter(isasyncgen, gc.get_referents(awaited)), None)
    return None


def place_of(frame: FrameType) -> str:
    """The file, as people name it, and the line."""
    return place(frame.f_code.co_filename, frame.f_lineno)


def place(file: str, line: int) -> str:
    """The file, as people name it, and the line."""
    path = Path(file)
    return f"{path.relative_to(SERVICE) if path.is_relative_to(SERVICE) else path.name}:{line}"


@cache
def _is_of_the_app(file: str) -> bool:
    path = Path(file)
    return path.is_relative_to(SERVICE / "app") and not path.is_relative_to(SERVICE / "app/cron")


def _shortened(statement: str) -> str:
    words = " ".join(statement.split())
    return words if len(words) <= 80 else f"{words[:77]}..."


MACHINE: Any = random.random.__self__  # type: ignore[attr-defined]
"""What the functions of the module `random` draw from."""


def _asked_of(builtin: Any) -> str:
    """What it is if it tells the machine's time or chance."""
    owner, name = getattr(builtin, "__self__", None), builtin.__name__
    if owner is MACHINE:
        return f"random.{name}"
    if owner in (datetime.datetime, datetime.date) and name in ("now", "today", "utcnow"):
        return f"{owner.__name__}.{name}"
    if owner is time and name not in ("sleep", "strftime", "mktime"):
        return f"time.{name}"
    return "os.urandom" if name == "urandom" else ""


def _asked_by(frame: FrameType) -> str:
    """The same for a function that is written in Python."""
    module, name = frame.f_globals.get("__name__"), frame.f_code.co_name
    if (
        (module == "random" and frame.f_locals.get("self") is MACHINE)
        or (module == "uuid" and name in ("uuid1", "uuid4"))
        or module == "secrets"
    ):
        return f"{module}.{name}"
    return ""
