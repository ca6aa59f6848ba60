"""How runs have ended: kept until the store has it, then told to the log and to who waits."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container, Iterable, Sequence
from typing import TypeVar

from .job import JobLog
from .schedule import in_words
from .store import Claim, Finish, Look, Store, StoreUnavailable

Item = TypeVar("Item", Claim, Finish)
Answer = TypeVar("Answer")

log = logging.getLogger(__name__)


async def each(
    operation: Callable[[Sequence[Item]], Awaitable[Answer]],
    items: Sequence[Item],
    done: Callable[[Sequence[Item], Answer], None],
) -> None:
    """Ask the store with all items at once or, where that fails, with each alone, so that one job's
    fault touches no other. `done` is given each answer as it comes; what fails alone is logged."""
    try:
        answer = await operation(items)
    except StoreUnavailable:
        raise
    except Exception:
        if len(items) == 1:
            log.exception("cron: %s cannot be claimed, or its end recorded", items[0].name)
        else:
            for item in items:
                await each(operation, [item], done)
    else:
        done(items, answer)


class Ends:
    """The ends of runs which the store does not have yet. `recorded` is given what is known of the
    jobs after that."""

    def __init__(self, store: Store, recorded: Callable[[Iterable[Look]], None]) -> None:
        self._store = store
        self._tell = recorded
        self._finishes: dict[str, Finish] = {}
        self._awaited: dict[str, asyncio.Future[Finish]] = {}

    @property
    def names(self) -> set[str]:
        """The jobs for whose last run this is so."""
        return set(self._finishes)

    def add(self, finish: Finish) -> None:
        """A run has ended."""
        self._finishes[finish.name] = finish

    def of(self, name: str) -> asyncio.Future[Finish]:
        """How the next run of this job ends, once that is recorded."""
        return self._awaited.setdefault(name, asyncio.get_running_loop().create_future())

    async def record(self) -> None:
        """Tell the store. What it cannot record now is kept for later."""
        passed = set[str]()

        def recorded(finishes: Sequence[Finish], answer: tuple[list[Look], set[str]]) -> None:
            looks, lost = {look.name: look for look in answer[0]}, answer[1]
            passed.update({finish.name for finish in finishes} - looks.keys())
            self._recorded([end for end in finishes if end.name in looks], looks, lost)

        if finishes := list(self._finishes.values()):
            await each(self._store.finish, finishes, recorded)
            for finish in finishes:  # those that have failed alone: their leases run out
                if finish.name not in passed:
                    self._settle(finish, recorded=False)

    def give_up(self) -> None:
        """The store is not told any more."""
        for finish in self._finishes.values():
            JobLog(finish.name, finish.run_no).error("%s, which is not recorded", finish.outcome)
        for awaited in self._awaited.values():
            _fail(awaited)

    def _recorded(
        self, finishes: Iterable[Finish], looks: dict[str, Look], lost: Container[str]
    ) -> None:
        for finish in finishes:
            if finish.name in lost:
                JobLog(finish.name, finish.run_no).warning(
                    "%s, but it was not the last run any more: it counts as abandoned",
                    finish.outcome,
                )
            else:
                _report(finish, looks[finish.name])
            self._settle(finish, recorded=finish.name not in lost)
        self._tell(looks.values())

    def _settle(self, finish: Finish, *, recorded: bool) -> None:
        if self._finishes.get(finish.name) is not finish:
            return
        del self._finishes[finish.name]
        if awaited := self._awaited.pop(finish.name, None):
            if not recorded:
                _fail(awaited)
            elif not awaited.done():
                awaited.set_result(finish)


def _fail(awaited: asyncio.Future[Finish]) -> None:
    if not awaited.done():
        awaited.set_exception(StoreUnavailable("how the run ended is not recorded"))
        awaited.exception()  # or asyncio would complain where nobody waits for it any more


def _report(finish: Finish, look: Look) -> None:
    remark = finish.note or finish.error
    due = finish.outcome != "interrupted" and not look.paused
    JobLog(finish.name, finish.run_no).info(
        "%s%s%s",
        finish.outcome,
        f", {remark}" if remark else "",
        f"; next in {in_words(look.delay)}" if due else "",
        extra={"outcome": finish.outcome},
    )
