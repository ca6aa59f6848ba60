"""The generated service with a visitor: sessions are made, expire, and vanish from the database.

Usage, in the generated service: .venv/bin/python demo_service.py [PORT]
"""

import json
import sqlite3
import sys
import threading
import time
import urllib.request
from contextlib import closing

import uvicorn
from fastapi import FastAPI

sys.path.insert(0, "")  # the service is in the working directory

from app.cron import every, job
from app.jobs.expire_sessions import expire_sessions
from app.main import create_app

VISIT_SECONDS = 3
TTL_SECONDS = 2


def create_demo_app() -> FastAPI:
    """Make the app as generated, but for its job: every 10 seconds, not every 5 minutes."""
    return create_app(jobs=[job(every(seconds=10))(expire_sessions)])


def visit(port: int) -> None:
    """Make a session over HTTP again and again, and tell how many the database holds."""
    body = json.dumps({"user": "demo", "ttl_seconds": TTL_SECONDS}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/sessions", body, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is this machine
    while True:
        time.sleep(VISIT_SECONDS)
        try:
            with opener.open(request, timeout=VISIT_SECONDS) as response:
                status = response.status
        except OSError as error:
            print(f"demo: no answer from port {port}: {error}", flush=True)
            continue
        with closing(sqlite3.connect("data/app.db")) as database:
            [(count,)] = database.execute("SELECT count(*) FROM sessions")
        print(
            f"demo: POST /sessions, ttl_seconds {TTL_SECONDS} -> {status}; "
            f"sessions in the database: {count}",
            flush=True,
        )


def main() -> None:
    """Serve until Ctrl-C."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    print(
        f"demo: a session every {VISIT_SECONDS} s, each for {TTL_SECONDS} s; the job deletes what "
        f"has expired every 7 to 13 s. Look at http://127.0.0.1:{port}/docs; Ctrl-C ends it.",
        flush=True,
    )
    threading.Thread(target=visit, args=[port], daemon=True).start()
    uvicorn.run(create_demo_app, factory=True, port=port, access_log=False)


if __name__ == "__main__":
    main()
