"""The server as a container starts it: `python -m app`, with uvicorn's own options after it."""

import os
import sys

import uvicorn

# Connections that are still open after so many seconds are cut; only then the jobs are told. With
# the grace of the jobs that stays under the ten seconds after which Docker kills.
DRAIN_SECONDS = 2


def main() -> None:
    """Serve, as the variables of uvicorn and its options say."""
    if port := os.environ.get("PORT"):  # as platforms say it
        os.environ.setdefault("UVICORN_PORT", port)
    options = ["--factory", f"--timeout-graceful-shutdown={DRAIN_SECONDS}", *sys.argv[1:]]
    uvicorn.main(["app.main:create_app", *options])


if __name__ == "__main__":
    main()
