"""The server as a container starts it: `python -m app`, with uvicorn's own options after it."""

import os
import sys
from contextlib import suppress

import uvicorn
from dotenv import load_dotenv

from app.settings import ENV_FILE

# Connections that are still open after so many seconds are cut; only then the jobs are told. With
# the grace of the jobs that stays under the ten seconds after which Docker kills.
DRAIN_SECONDS = 2


def main() -> None:
    """Serve, as the variables of uvicorn and its options say. `.env` may hold them too."""
    _take_port()
    with suppress(OSError, UnicodeDecodeError):  # the app will say that it cannot be read
        load_dotenv(ENV_FILE)
    _take_port()  # that of the file, where the environment has none
    options = ["--factory", f"--timeout-graceful-shutdown={DRAIN_SECONDS}", *sys.argv[1:]]
    uvicorn.main(["app.main:create_app", *options])


def _take_port() -> None:
    if port := os.environ.get("PORT"):  # as platforms say it
        os.environ["UVICORN_PORT"] = os.environ.get("UVICORN_PORT") or port


if __name__ == "__main__":
    main()
