"""Generates the default service, installs it, and runs it on SQLite with its jobs visibly working.

Usage: .venv/bin/python -m tools.demo [PORT]
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tools.bake import bake

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / ".demo"


def main() -> None:
    """Make everything anew, then become the service."""
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir()
    print("demo: generating the default service ...", flush=True)
    project = bake(DEMO)
    print(f"demo: installing what {project.name} needs ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=project, check=True)
    python = project / ".venv" / "bin" / "python"
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    subprocess.run([python, *install, "-r", "requirements.txt"], cwd=project, check=True)
    os.chdir(project)
    # Not a child: Ctrl-C and the exit code are the service's own.
    os.execv(python, [str(python), str(ROOT / "tools" / "demo_service.py"), *sys.argv[1:]])


if __name__ == "__main__":
    main()
