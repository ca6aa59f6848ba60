"""Asks the server of this container whether it is alive: `python -m app.ops.healthcheck`.

Exit code 0: it is. 1: it should be restarted, and a line says why.
"""

import os
import sys
from contextlib import closing
from http.client import HTTPConnection, HTTPException

# Docker gives the whole process four seconds.
ANSWER_SECONDS_MAX = 2


def main() -> str | None:
    """What is wrong, or None. It asks on the port that the server's variables name."""
    port = os.environ.get("UVICORN_PORT") or os.environ.get("PORT") or "8000"
    try:
        with closing(HTTPConnection(f"localhost:{port}", timeout=ANSWER_SECONDS_MAX)) as connection:
            connection.request("GET", "/health/live")
            answer = connection.getresponse()
            text = answer.read().decode()
    except (OSError, HTTPException) as error:
        return f"port {port} does not answer: {error or type(error).__name__}"
    return None if answer.status == 200 else f"port {port} answers {answer.status}: {text}"


if __name__ == "__main__":
    sys.exit(main())
