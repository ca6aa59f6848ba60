"""A network of their own for processes, with a link to this machine that can be cut.

It is a namespace of Linux's, for which one must be root. It ends with the process that has made it,
however that ends, so nothing is left of it.
"""

import os
import subprocess
import time
from functools import cache
from pathlib import Path

# Kept free on all networks for tests of devices.
NETWORK = "198.18.0.0/15"

# In each network so many addresses: two, and those with a meaning.
NETWORK_SIZE, NETWORKS = 4, 2**15

BEGIN_SECONDS_MAX = 10.0


class Link:
    """A network of its own, held by a process that sleeps in it, and the one link to it."""

    _made = 0

    def __init__(self) -> None:
        """Make it, with addresses that no other run of this program has, by its process's id."""
        sleep = ["unshare", "--net", "sleep", "infinity"]
        self._holder = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *sleep])
        self._wait()
        Link._made += 1
        self._name = f"ch{os.getpid()}n{Link._made}"
        number = (os.getpid() * 64 + Link._made) % NETWORKS * NETWORK_SIZE
        prefix = f"198.{18 + (number >> 16)}.{number >> 8 & 255}"
        self.host, address = (f"{prefix}.{(number & 255) + last}" for last in (1, 2))
        peer = ["peer", "name", "eth0", "netns", str(self._holder.pid)]
        run("ip", "link", "add", self._name, "type", "veth", *peer)
        run("ip", "address", "add", f"{self.host}/30", "dev", self._name)
        run("ip", "link", "set", self._name, "up")
        run(*self.command, "ip", "link", "set", "lo", "up")
        run(*self.command, "ip", "address", "add", f"{address}/30", "dev", "eth0")
        run(*self.command, "ip", "link", "set", "eth0", "up")

    @property
    def command(self) -> list[str]:
        """How a command begins that runs in it."""
        return ["nsenter", f"--target={self._holder.pid}", "--net"]

    def cut(self) -> None:
        """Let nothing through."""
        run("ip", "link", "set", self._name, "down")

    def mend(self) -> None:
        """Let all through again."""
        run("ip", "link", "set", self._name, "up")

    def end(self) -> None:
        """End it, once its last process has ended."""
        self._holder.kill()
        self._holder.wait()

    def _wait(self) -> None:
        """Wait until the holder has come so far that it sleeps."""
        deadline = time.monotonic() + BEGIN_SECONDS_MAX
        while Path(f"/proc/{self._holder.pid}/comm").read_text().strip() != "sleep":
            assert self._holder.poll() is None, "this needs root"
            assert time.monotonic() < deadline, "the network does not begin"
            time.sleep(0.01)


def run(*command: str) -> None:
    """Run a command, which must succeed."""
    subprocess.run(command, check=True)


@cache
def lacks_network() -> str | None:
    """Say why no process can have a network of its own here, if that is so."""
    try:
        Link().end()
    except (OSError, AssertionError, subprocess.CalledProcessError) as error:
        return f"no process can have a network of its own here: {error}"
    return None
