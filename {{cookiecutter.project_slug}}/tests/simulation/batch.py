"""Many seeds: each is run, judged and counted."""

import hashlib
from dataclasses import dataclass

from .faults import FAULTS
from .history import Record
from .jobs import KINDS
from .ledger import Violation
from .oracle import Oracle
from .simulation import Result, Simulation
from .survey import Survey


@dataclass(frozen=True)
class Verdict:
    """What came of one seed."""

    result: Result
    violations: list[Violation]

    def __str__(self) -> str:
        seed = self.result.seed
        lines = [
            f"{each.at / 1_000_000:.6f} s: {each.rule}: {each.name} {each.text}"
            for each in self.violations[:5]
        ]
        return "\n".join([f"seed {seed}; replay: SEED={seed} python -m simulation", *lines])


def judged(seed: int) -> Verdict:
    """Run a seed and judge it."""
    result = Simulation(seed).run()
    return Verdict(result, Oracle(result.draw).judge(result.history, result.end))


def counted(seed: int) -> tuple[Verdict | None, Survey]:
    """The same, with what it has met. Without a violation, nothing else is left of it."""
    verdict, survey = judged(seed), Survey()
    survey.read(verdict.result.history, verdict.result.end)
    return verdict if verdict.violations else None, survey


def digest(history: list[Record]) -> str:
    """The same for the same history, and no other."""
    return hashlib.sha256("\n".join(map(repr, history)).encode()).hexdigest()


def summary(survey: Survey) -> str:
    """What a batch has met, for people."""
    counts = survey.counts
    size = (
        f"{counts['seeds']} seeds, {counts['job-seconds'] / 86_400:,.0f} job-days, "
        f"{counts['runs']:,} runs, {survey.faults.total():,} faults"
    )
    lines = [
        size,
        "sometimes: " + ", ".join(f"{what} {n}" for what, n in sorted(survey.sometimes.items())),
        survey.table(FAULTS, KINDS),
    ]
    return "\n".join(lines)
