"""Remove the CI files that were not chosen, and say what to type next."""

import json
from pathlib import Path

ANSWERS = json.loads(r"""{{ cookiecutter | jsonify }}""")  # exact: pre_gen_project.py says why

CI_FILES = {
    "GitHub": [".github/workflows/ci.yml", ".github/dependabot.yml"],
    "GitLab": [".gitlab-ci.yml"],
}

NEXT = """
{slug} is ready. Next:

    cd {slug}
    make run

The first run installs the locked requirements into .venv. Then the log counts the jobs and says
which is next, and http://127.0.0.1:8000/docs shows the API. `make test` proves the jobs.
"""


def prune(file: Path) -> None:
    """Remove the file, and the folders that held nothing else."""
    file.unlink()
    for folder in file.parents:
        if folder == Path() or any(folder.iterdir()):
            return
        folder.rmdir()


def main() -> None:
    """Prune, then speak."""
    for ci, files in CI_FILES.items():
        if ci != ANSWERS["ci"]:
            for file in files:
                prune(Path(file))
    # Only cookiecutter names an output folder. cruft does not, and also runs this file in a
    # temporary folder at each update, where the words would be wrong.
    if "_output_dir" in ANSWERS:
        print(NEXT.format(slug=ANSWERS["project_slug"]))


main()
