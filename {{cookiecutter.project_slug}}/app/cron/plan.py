"""The plan: from what the store says of the jobs to the moment at which each is tried next."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType

from .agenda import Agenda
from .clock import Clock, RandomSource
from .job import Job
from .store import Claim, Look, Registration

# Every process looks at the store this often, whatever is due: others change what it knows, and a
# stepped wall clock or a suspended machine makes its plan stale.
LOOK_EVERY = timedelta(seconds=15)

# What is found to have been due for longer was run by nobody: after a start, an outage, the death
# of a process. Such jobs begin spread out, not all at once.
OVERDUE = timedelta(seconds=1)

NOW = timedelta(0)


class Plan:
    """Knows of each job which run comes next, and has an agenda of when to try for it."""

    def __init__(
        self, jobs: Mapping[str, Job], *, clock: Clock, random: RandomSource, coalesce: timedelta
    ) -> None:
        self.agenda = Agenda(clock, coalesce)
        self._jobs = jobs
        self._clock = clock
        self._random = random
        self._run_nos: dict[str, int] = {}
        self._held: set[str] = set()

    def registration(self, name: str) -> Registration:
        """What the store needs to know of the job."""
        schedule = self._jobs[name].schedule

        def first(now: datetime) -> datetime:  # with the same chance however often it is asked
            return schedule.first(now, self._random(f"{name}:0:gap"))

        return Registration(name, first, schedule.latest, schedule.steady)

    def wish(self, name: str, *, forced: bool = False) -> Claim:
        """The claim of the job's next run."""
        run_no = self._run_nos[name]

        def next_run_at(now: datetime) -> datetime:
            return self._jobs[name].schedule.next(now, self._random(f"{name}:{run_no + 1}:gap"))

        return Claim(name, run_no, next_run_at, forced)

    def is_held(self, name: str) -> bool:
        """True: another process runs the job, so look again before you claim it."""
        return name in self._held

    def know(self, name: str, run_no: int) -> None:
        """Take this for the job's last run."""
        self._run_nos[name] = run_no

    def renew(self, looks: Iterable[Look], *, stale: bool) -> None:
        """Plan all anew. Unless the plan was `stale`, what waits already does not wait anew."""
        before = {} if stale else self.agenda.delays()
        self.agenda.drop(self._jobs)
        self.add(looks, before=before)

    def add(
        self,
        looks: Iterable[Look],
        *,
        soonest: timedelta = NOW,
        before: Mapping[str, timedelta] = MappingProxyType({}),
    ) -> None:
        """Put into the agenda when to try for each job, not before `soonest`."""
        for look in looks:
            self.know(look.name, look.run_no)
            was_held = look.name in self._held
            self._held.discard(look.name)
            if look.paused:
                continue
            delay = look.delay
            if delay <= NOW < look.held_for:
                self._held.add(look.name)
                period = self._jobs[look.name].schedule.period(self._clock.now())
                delay = min(look.held_for, period, LOOK_EVERY)
            elif delay <= NOW:
                if delay < -OVERDUE and not look.prompt:
                    delay = self._spread(look)
                if not was_held:
                    delay = min(delay, before.get(look.name, delay))
            self.agenda.add(look.name, max(delay, soonest))

    def _spread(self, look: Look) -> timedelta:
        """How long an overdue job waits; not until it would be too late to run."""
        job = self._jobs[look.name]
        delay = job.schedule.catch_up(self._random(f"{look.name}:{look.run_no}:catch-up"))
        if job.max_late is None:
            return delay
        return max(NOW, min(delay, job.max_late + look.delay - OVERDUE))
