"""The rules for the jobs that each process runs for itself, of which the database knows nothing."""

from .history import Body
from .ledger import CATCH_UP, HELD_UP, PROMPT, SECOND, Ledger, Life

# A timer of a clock that is right fires when it should, and nothing else takes time.
EXACT = SECOND // 1000


class OwnRules(Ledger):
    """Judges bodies by those before them in the same life of a process."""

    def _own_body(self, life: Life, body: Body) -> None:
        last = life.own.get(body.name)
        order = {"begun": "torn down", "ended": "begun", "torn down": "ended"}
        if last is not None and order.get(body.what, last.what) != last.what:
            self._broken("own bodies", f"{last.what}, then {body.what}", body.name)
        if body.what == "told":
            return
        life.own[body.name] = body
        if body.what == "begun":
            self._own_gap(life, body.name, begins=body)
            life.own_begun[body.name] = body

    def _own_missing(self, life: Life) -> None:
        """No start is missing when nobody looks any more."""
        if life.over is None and life.stopping is None:
            for name, terms in life.started.jobs.items():
                if terms.alone:
                    self._own_gap(life, name, begins=None)

    def _own_gap(self, life: Life, name: str, begins: Body | None) -> None:
        """Whatever the wall clock does, a start is due by the gap that the last one has drawn."""
        last, terms = life.own_begun.get(name), life.started.jobs[name]
        process = life.started.process
        if last is None:  # the process may wait for the database first
            since, due, slack = life.started.at, life.started.at + CATCH_UP, PROMPT
            if self._disturbed(process, since):
                return
        else:
            since = last.at
            due = self._drawn(terms, f"{name}:{last.run_no}:gap", since)
            # What a step of the clock is taken for is rounded, or wrong by a drift.
            slack = 2 * PROMPT if life.started.drift or self._stepped(since) else EXACT
            if self._disturbed(process, since, *HELD_UP):
                return
        late = self._now - due
        if late > slack or (last and begins and late < -slack and name not in life.asked):
            what = "begun" if begins else "not begun yet"
            self._broken("own gap", f"{process}: {what}, {late / SECOND} s after it is due", name)
