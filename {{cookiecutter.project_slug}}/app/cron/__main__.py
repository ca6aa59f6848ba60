"""The shell, `python -m app.cron`: a door beside `app/main.py`."""

import asyncio
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from signal import SIGINT

from app.jobs import JOBS
from app.ops.logs import set_up_logs
from app.settings import SettingsError, read_settings

from .clock import Clock, SystemClock
from .command_line import Refused, read_arguments
from .job import Function, JobError
from .shell import BY_SIGNAL, FAILED, REFUSED, UNUSABLE, Shell, tell
from .store import StoreUnavailable


def main(
    words: Sequence[str] | None = None,
    *,
    jobs: Sequence[Function] = JOBS,
    clock: Clock | None = None,
) -> int:
    """Do what the words, or else the command line, say; give the exit code."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a note has letters that it may not know
    try:
        arguments = read_arguments(words)
        settings = read_settings()
        set_up_logs(settings)
        code = asyncio.run(Shell(settings, jobs, clock or SystemClock()).do(arguments))
        sys.stdout.flush()
    except (Refused, SettingsError, JobError) as error:
        return tell(str(error), REFUSED)
    except StoreUnavailable as error:
        return tell(f"{UNUSABLE}: {error}", FAILED)
    except KeyboardInterrupt:
        return BY_SIGNAL + SIGINT
    except BrokenPipeError:  # who read it has left, as `head` does: Python need not say so, too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BY_SIGNAL + 13  # of SIGPIPE, which Windows does not have
    return code


if __name__ == "__main__":
    sys.exit(main())
