"""Makes a service from the work tree's template: python tools/bake.py TARGET [key=value ...]."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cookiecutter.exceptions import CookiecutterException
from cookiecutter.main import cookiecutter

TEMPLATE = Path(__file__).resolve().parent.parent


def copy_template(target: Path) -> Path:
    """Copy the template to the new folder `target` and return it.

    Cookiecutter and cruft take every file they find in a template, so only those are copied that
    git tracks or would add: no cache, no virtual environment.
    """
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TEMPLATE,
        capture_output=True,
        check=True,
    )
    for name in listing.stdout.decode().split("\0"):
        source = TEMPLATE / name
        if source.is_file():  # not so for the last, empty name, nor for a file not yet git-removed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name)
    return target


def bake(target: Path, **answers: str) -> Path:
    """Generate a service in the folder `target` and return its own folder.

    Questions without an answer take their default. As on cookiecutter's command line, an answer is
    rendered. Raises ValueError for an unknown question or choice, and cookiecutter's
    FailedHookException for an answer that the template refuses.
    """
    questions = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
    if unknown := answers.keys() - questions.keys():
        raise ValueError(f"the template does not ask for {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as directory:
        project = cookiecutter(
            str(copy_template(Path(directory, "template"))),
            no_input=True,
            extra_context=answers,
            output_dir=str(target),
            default_config={"replay_dir": directory},  # reads and writes nothing in the user's home
        )
    return Path(project)


def main() -> None:
    """Bake what the command line says and print where it is."""
    target, *pairs = sys.argv[1:] or sys.exit(__doc__)
    try:
        print(bake(Path(target), **dict(pair.split("=", 1) for pair in pairs)))
    except (CookiecutterException, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
