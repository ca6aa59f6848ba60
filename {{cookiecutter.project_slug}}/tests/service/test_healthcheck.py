"""The container's check: alive or not, and why not, whatever answers on the port."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from app.ops import healthcheck
from support.process import Process, Server


@contextmanager
def answering(answer: bytes | None) -> Iterator[int]:
    """A server that gives one client this answer, or none at all. Gives its port."""
    asked_enough = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(10_000)
                if answer is None:
                    asked_enough.wait(5)
                else:
                    client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        asked_enough.set()
        thread.join()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", None),
        (
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\ndead!",
            "port {port} answers 503: dead!",
        ),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", "port {port} answers 404: no"),
        (b"SSH-2.0-OpenSSH_9\r\n", "port {port} does not answer: SSH-2.0-OpenSSH_9\r\n"),
        (b"", "port {port} does not answer: Remote end closed connection without response"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut",
            "port {port} does not answer: IncompleteRead(3 bytes read, 6 more expected)",
        ),
        (None, "port {port} does not answer: timed out"),
    ],
    ids=["200", "503", "404", "another protocol", "nothing", "half an answer", "silence"],
)
def test_only_a_whole_200_is_alive(
    monkeypatch: pytest.MonkeyPatch, answer: bytes | None, problem: str | None
) -> None:
    """Everything else is told as it is."""
    monkeypatch.setattr(healthcheck, "ANSWER_SECONDS_MAX", 0.2)
    with answering(answer) as port:
        monkeypatch.setenv("PORT", str(port))
        said = healthcheck.main()
    assert said == (problem and problem.format(port=port))


@pytest.mark.parametrize(
    ("environment", "port"),
    [
        ({}, 8000),
        ({"PORT": "8001"}, 8001),
        ({"PORT": "8001", "UVICORN_PORT": "8002"}, 8002),
        ({"PORT": "8001", "UVICORN_PORT": ""}, 8001),
    ],
)
def test_it_asks_on_the_port_of_the_server(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], port: int
) -> None:
    """The variables mean the same to both."""
    asked: list[tuple[str, int]] = []

    class Connection(HTTPConnection):
        def connect(self) -> None:
            asked.append((self.host, self.port))
            raise ConnectionRefusedError("refused")

    monkeypatch.setattr(healthcheck, "HTTPConnection", Connection)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert healthcheck.main() == f"port {port} does not answer: refused"
    assert asked == [("localhost", port)]


def test_a_port_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a line, as what does not answer."""
    monkeypatch.setenv("PORT", "http")
    assert healthcheck.main() == "port http does not answer: nonnumeric port: 'http'"


def test_the_command_says_nothing_of_a_server_that_lives(tmp_path: Path) -> None:
    """With code 0; after the server's end with code 1 and a line."""
    with Server(tmp_path) as server:
        port = server.url().rpartition(":")[2]
        code, output = run_check(tmp_path, port)
        assert (code, output) == (0, "")
    code, output = run_check(tmp_path, port)
    assert code == 1
    assert output.startswith(f"port {port} does not answer: ")
    assert len(output.splitlines()) == 1


class Check(Process):
    """The check as the Dockerfile has it, with all of its start."""

    forked = False


def run_check(folder: Path, port: str) -> tuple[int, str]:
    """How it ends, and what it says."""
    arguments = ("-m", "app.ops.healthcheck")
    with Check(folder, *arguments, environment={"UVICORN_PORT": port}) as check:
        return check.popen.wait(10), check.output
