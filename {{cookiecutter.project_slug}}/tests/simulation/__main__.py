"""`SEEDS=1000 python -m simulation` runs and judges so many seeds; `SEED=7` replays one.

A seed that breaks a rule is printed and drawn into a file; so is what SEED replays. FIRST is the
first of the seeds. The exit code is 1 if a rule was broken, or the batch met too little.
"""

import os
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from .batch import Verdict, counted, digest, judged, summary
from .faults import FAULTS
from .jobs import KINDS
from .ledger import Violation
from .loop import SECOND
from .picture import Picture, picture
from .survey import Survey

# So much time before a violation is drawn.
AROUND = 600 * SECOND

# Seeds after which a violation was found are not worth waiting for.
FAILURES_MAX = 5

PROGRESS_SECONDS = 2.0


def draw(verdict: Verdict) -> Path:
    """Draw the first violation of a seed or, without one, all of it."""
    history, seed = verdict.result.history, verdict.result.seed
    path = Path(f"seed-{seed}.svg")
    if verdict.violations:
        first: Violation = verdict.violations[0]
        title = f"seed {seed}: {first.rule}: {first.name} {first.text}"
        path.write_text(picture(history, first, title, AROUND))
    else:
        whole = Picture(history, 0, verdict.result.end)
        path.write_text(whole.draw(f"seed {seed}: no rule is broken", []))
    return path


def replay(seed: int) -> int:
    """Run one seed, show and draw what it has broken."""
    verdict = judged(seed)
    print(verdict)
    print(f"trace {digest(verdict.result.history)}, drawn in {draw(verdict)}")
    return 1 if verdict.violations else 0


def batch(first: int, seeds: int) -> int:
    """Run many, on all processors, and tell of what they have met."""
    total, failures, began = Survey(), 0, time.monotonic()
    shown = began
    # SIGTERM ends it as Ctrl-C does, or the pool's processes would work on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    pool = ProcessPoolExecutor(mp_context=get_context("spawn"))
    try:
        for verdict, survey in pool.map(counted, range(first, first + seeds)):
            total.add(survey)
            if verdict is not None:
                failures += 1
                print(f"\n{verdict}\ndrawn in {draw(verdict)}")
                if failures == FAILURES_MAX:
                    break
            if (now := time.monotonic()) - shown > PROGRESS_SECONDS:
                shown, done = now, total.counts["seeds"]
                print(f"\r{done} of {seeds} seeds, {failures} failed", end="", file=sys.stderr)
    finally:
        pool.shutdown(cancel_futures=True)
    print(f"\n{summary(total)}\n{time.monotonic() - began:.0f} s, {failures} seeds failed")
    missing = total.missing(FAULTS, KINDS)
    for what in missing:
        print(f"too rare: {what}")
    return 1 if failures or missing else 0


if __name__ == "__main__":
    if seed := os.environ.get("SEED"):
        sys.exit(replay(int(seed)))
    try:
        sys.exit(batch(int(os.environ.get("FIRST", "0")), int(os.environ.get("SEEDS", "1000"))))
    except KeyboardInterrupt:
        sys.exit("stopped")
