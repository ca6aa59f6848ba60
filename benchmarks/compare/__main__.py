"""Runs the service beside what people use instead, and writes the README's table of that.

Usage: .venv/bin/python -m benchmarks.compare

Each peer is installed into an environment of its own, in .cache/compare, and started as three
uvicorn processes, to which the same is done. All peers run at the same time; it takes two minutes.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.compare.count import Facts, count
from benchmarks.compare.peers import PEERS, REQUIREMENTS, ROOT, Installed, Peer
from benchmarks.compare.scenario import faults, restarts, thread
from benchmarks.compare.table import between_markers, table
from tools.bake import bake

CACHE = ROOT / ".cache" / "compare"
README = ROOT / "README.md"


def main() -> None:
    """Install, run, count, print the table, and write it into the README."""
    shutil.rmtree(CACHE / "service", ignore_errors=True)
    project = bake(CACHE / "service")
    lists = {
        "ours": project / "requirements.txt",
        **{file.stem: file for file in sorted(REQUIREMENTS.glob("*.txt"))},
    }
    path = os.pathsep.join([str(ROOT), str(project)])
    folder = Path(tempfile.mkdtemp(prefix="compare-"))
    with ThreadPoolExecutor() as pool:
        print(f"compare: installing {', '.join(lists)} ...", flush=True)
        pythons = dict(zip(lists, pool.map(install, lists, lists.values()), strict=True))
        print(f"compare: running for a minute and a half, in {folder} ...", flush=True)
        installed = [Installed(pythons[peer.environment_of], path) for peer in PEERS]
        facts = list(pool.map(partial(run, folder), PEERS, installed))
    text = table({peer.title: its for peer, its in zip(PEERS, facts, strict=True)})
    README.write_text(between_markers(README.read_text("utf-8"), text), "utf-8")
    shutil.rmtree(folder)
    print(f"\n{text}\n\nload {os.getloadavg()[0]:.1f}; written into {README.name}")


def install(name: str, requirements: Path) -> Path:
    """Make an environment with what the list names, unless it is there. Return its Python."""
    venv = CACHE / name
    python, done = venv / "bin" / "python", venv / "installed.txt"
    if not done.exists() or done.read_bytes() != requirements.read_bytes():
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        install = ["install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        subprocess.run([python, "-m", "pip", *install, "-r", requirements], check=True)
        shutil.copy(requirements, done)
    return python


def run(folder: Path, peer: Peer, installed: Installed) -> Facts:
    """Run a peer's stories, the one about restarts beside the others, and count."""
    folders = [folder / peer.app / story.__name__ for story in (faults, restarts, thread)]
    for of_story in folders:
        of_story.mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        beside = pool.submit(restarts, peer, installed, folders[1])
        return count(
            faults(peer, installed, folders[0]),
            thread=thread(peer, installed, folders[2]),
            restarts=beside.result(),
        )


if __name__ == "__main__":
    main()
