"""Puts the mistakes and the good jobs on trial.

Usage: PYTHONPATH=SERVICE:SERVICE/tests python -m tests.contract [NAME...]

Writes a line of JSON for each job: its name and what was found. For a mistake only one clause is
asked; that, the lines of which one is to be named and the advice to be given stand beside it.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from support import contract, trial, watch

from tests.contract.good_jobs import GOOD, OVERRIDES
from tests.contract.mistakes import MISTAKES

# What is stuck is stuck sooner.
watch.ENDLESS_SECONDS = 0.5
trial.BUSY_SECONDS = 0.1


async def try_job(
    function: Callable[..., Any],
    arrange: Callable[[Connection], object],
    clauses: Sequence[str],
    **expected: object,
) -> None:
    """Write the complaints about a job, beside what is expected of them."""
    with tempfile.TemporaryDirectory() as folder:
        subject = await contract.Subject.of(function, Path(folder), arrange, OVERRIDES)
        found = await contract.complaints(subject, clauses)
    print(json.dumps({"name": function.__name__, "found": found, **expected}), flush=True)


async def main(names: Sequence[str]) -> None:
    """Try those that are named, or all."""
    for mistake in MISTAKES:
        if not names or mistake.function.__name__ in names:
            await try_job(
                mistake.function,
                mistake.arrange,
                [mistake.clause],
                clause=mistake.clause,
                places=mistake.places,
                remedy=mistake.remedy,
            )
    for function, arrange in GOOD.items():
        if not names or function.__name__ in names:
            await try_job(function, arrange, list(contract.CLAUSES))


asyncio.run(main(sys.argv[1:]))
