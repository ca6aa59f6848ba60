"""A verdict in words: a table, what is wrong, and one line."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from tools.chaos.oracle import (
    DELAY_SECONDS_P99,
    QUIET_EARLY_SECONDS,
    QUIET_LATE_SECONDS,
    SHARE,
    Lateness,
    Row,
    Verdict,
    percentile,
)

HEAD = (
    "job",
    "due times",
    "claims",
    "runs",
    "duplicates",
    "overlaps",
    "gap, s: min mean max",
    "delay, ms: p50 p99 max",
    "latest, s",
)


# A machine that stands still for so long makes claims useless, and leases end.
HELD_UP_SECONDS = 0.5

# What was done, in words.
PROCESSES = {
    "kill": "processes killed",
    "stop": "processes frozen beyond their lease",
    "terminate": "processes ended by SIGTERM and started anew",
}
DONE = {
    "sqlite": {
        **PROCESSES,
        "away": "times the disk was full",
        "step": "steps of the wall clock",
    },
    "postgres": {
        **PROCESSES,
        "cut": "processes cut off beyond their lease",
        "away": "database restarts",
        "disconnect": "connections terminated",
        "step": "steps of a process's wall clock",
    },
}


def report(name: str, verdict: Verdict, *, load: float, quiet: bool, held_up: float = 0) -> str:
    """Tell what was found, in a table with a line for each job and a last line that sums it up."""
    lines = [*_table([HEAD, *(_cells(row, quiet=quiet) for row in verdict.rows)])]
    if verdict.faults:
        faults = ", ".join(f"{what} {count}" for what, count in verdict.faults.items())
        ends = ", ".join(f"{how} {count}" for how, count in verdict.ends.items())
        lines.append(f"done: {faults}; how runs ended: {ends}")
    if shares := sorted(verdict.shares.values()):
        even = sum(shares) / len(shares)
        lines.append(
            f"runs of each process: {' '.join(map(str, shares))}; even would be {even:.1f}, "
            f"at least {SHARE * even:.1f} are asked for"
        )
    lines += [f"WRONG: {violation}" for violation in verdict.violations]
    counts = {
        "runs": sum(row.runs for row in verdict.rows),
        "duplicates": sum(row.duplicates for row in verdict.rows),
        "overlaps": sum(row.overlaps for row in verdict.rows),
        "stale writes": verdict.stale_writes,
    }
    word = "FAILED" if verdict.violations else "passed"
    summed = ", ".join(f"{count} {what}" for what, count in counts.items())
    delays = verdict.delays
    p99 = f", start delay p99 {percentile(delays, 0.99) * 1000:.0f} ms" if delays else ""
    paused = f", the machine stood still for {held_up:.1f} s" if held_up >= HELD_UP_SECONDS else ""
    return "\n".join([*lines, f"{name}: {word}: {summed}{p99}, load {load:.1f}{paused}"])


def total(database: str, verdicts: Sequence[Verdict]) -> str:
    """Sum up all that was seen of a database."""
    rows = [row for verdict in verdicts for row in verdict.rows]
    done = sum((verdict.faults for verdict in verdicts), Counter[str]())
    latest = min((row.latest for row in rows if row.latest), key=lambda it: it.left, default=None)
    most = max((row.latest for row in rows if row.latest), key=lambda it: it.seconds, default=None)
    seen = {
        "due times": sum(row.due_times for row in rows),
        "runs": sum(row.runs for row in rows),
        "duplicates": sum(row.duplicates for row in rows),
        "overlaps": _overlaps(rows),
        "stale fenced writes": sum(verdict.stale_writes for verdict in verdicts),
        "lost": sum(verdict.lost for verdict in verdicts),
        "nearest to its bound": _words(latest),
        "latest": _words(most),
        "violations": sum(len(verdict.violations) for verdict in verdicts),
        **{words: done[what] for what, words in DONE[database].items()},
    }
    return "\n".join([f"{database}:", *(f"  {what}: {count}" for what, count in seen.items())])


def explanation() -> str:
    """Tell how to read the tables."""
    return (
        "Due times: how many the history names; claims: how often one of them was claimed. A claim "
        "is not run if a signal comes before the body begins.\n"
        "In brackets: near starts that the contract allows, and overlaps where a lease can have "
        "ended: its process was frozen for that long; or cut off, and it was a thread, which "
        "nobody can cancel; or SQLite's wall clock was stepped.\n"
        f"A quiet gap may be {QUIET_EARLY_SECONDS:g} s shorter and {QUIET_LATE_SECONDS:g} s longer "
        f"than scheduled; the p99 of quiet delays is under {DELAY_SECONDS_P99 * 1000:.0f} ms.\n"
        "Latest: the start that came nearest to its bound, both counted from the latest moment at "
        "which the run can have been due."
    )


def _cells(row: Row, *, quiet: bool) -> tuple[str, ...]:
    gaps, delays = row.gaps or [0.0], row.delays or [0.0]
    gap = f"{min(gaps):.2f} {sum(gaps) / len(gaps):.2f} {max(gaps):.2f}"
    if quiet:
        least = min(row.job.floor, row.job.retry) - QUIET_EARLY_SECONDS
        gap += f" ({least:.1f} to {row.job.ceiling + QUIET_LATE_SECONDS:.1f})"
    delay = " ".join(f"{percentile(delays, part) * 1000:.0f}" for part in (0.5, 0.99, 1))
    latest = row.latest
    return (
        row.job.name,
        f"{row.due_times}",
        f"{row.claims}",
        f"{row.runs}",
        f"{row.duplicates}" + (f" (+{row.near})" if row.near else ""),
        _overlaps([row]),
        gap,
        delay,
        _words(latest),
    )


def _words(lateness: Lateness | None) -> str:
    return f"{lateness.seconds:.2f} of {lateness.bound:.2f}" if lateness else ""


def _overlaps(rows: Iterable[Row]) -> str:
    """Tell how many there are, and how many of which kind are explained."""
    counts = Counter[str]()
    for row in rows:
        counts["no reason"] += row.overlaps
        counts["frozen"] += row.overlaps_stopped
        counts["cut off"] += row.overlaps_cut_off
        counts["stepped"] += row.overlaps_stepped
    explained = [f"+{counts[kind]} {kind}" for kind in ("frozen", "cut off", "stepped")]
    explained = [words for words in explained if not words.startswith("+0")]
    return f"{counts['no reason']}" + (f" ({', '.join(explained)})" if explained else "")


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
