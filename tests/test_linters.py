"""The files of the generated project that other programs read, as those programs' linters see them.

None needs an engine or a network. Each linter is also given what it must not let pass.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.bake import bake

WORKFLOW = ".github/workflows/ci.yml"

# What is checked, and how.
LINTERS = {
    "Dockerfile": ["hadolint", "Dockerfile"],
    "compose.yaml": ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"],
    WORKFLOW: ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", WORKFLOW],
    ".gitlab-ci.yml": [
        *("check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", ".gitlab-ci.yml"),
        *("--data-transform", "gitlab-ci"),
    ],
    ".github/dependabot.yml": [
        *("check-jsonschema", "--builtin-schema", "vendor.dependabot", ".github/dependabot.yml"),
    ],
    "the workflow's logic": ["jactionlint", "--no-color", "--shellcheck="],
    "the workflow's security": [
        *("zizmor", "--offline", "--no-progress", "--quiet", "--persona", "auditor", "."),
    ],
    ".pre-commit-config.yaml": ["pre-commit", "validate-config", ".pre-commit-config.yaml"],
}

# A change by which each must find something: file, what stands there, what would be worse.
MISTAKES = {
    "Dockerfile": ("Dockerfile", "WORKDIR /\n", "RUN cd / && sudo true\n"),
    "compose.yaml": ("compose.yaml", "read_only: true", "read_only: [true]"),
    WORKFLOW: (WORKFLOW, "runs-on: ubuntu-24.04", "runs_on: ubuntu-24.04"),
    ".gitlab-ci.yml": (".gitlab-ci.yml", "timeout: 15 minutes", "timeout: [15 minutes]"),
    ".github/dependabot.yml": (".github/dependabot.yml", "interval: weekly", "interval: hourly"),
    "the workflow's logic": (WORKFLOW, "${{ matrix.python }}", "${{ matrix.pyhton }}"),
    "the workflow's security": (WORKFLOW, "persist-credentials: false", "fetch-depth: 1"),
    ".pre-commit-config.yaml": (".pre-commit-config.yaml", "id: lint", "di: lint"),
}

Bakery = Callable[[str], Path]


@pytest.fixture
def bakery(tmp_path: Path) -> Bakery:
    """Give a function that bakes a project with a CI, and makes it a repository."""

    def baked(ci: str) -> Path:
        service = bake(tmp_path, ci=ci)
        subprocess.run(["git", "init", "--quiet"], cwd=service, check=True)
        return service

    return baked


def lint(command: list[str], service: Path) -> tuple[int, str]:
    """Run a linter of this environment. Return its exit code and all that it says."""
    name, *arguments = command
    done = subprocess.run(
        [Path(sys.executable).with_name(name), *arguments],
        cwd=service,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def ci_of(name: str) -> str:
    """Return the CI whose project has that file."""
    return "GitLab" if "gitlab" in name else "GitHub"


@pytest.mark.parametrize("name", LINTERS)
def test_the_linter_finds_nothing(bakery: Bakery, name: str) -> None:
    """At its strictest."""
    code, output = lint(LINTERS[name], bakery(ci_of(name)))
    assert code == 0, output


@pytest.mark.parametrize("name", LINTERS)
def test_the_linter_finds_a_mistake(bakery: Bakery, name: str) -> None:
    """So it has really read the file."""
    service = bakery(ci_of(name))
    file, good, bad = MISTAKES[name]
    text = (service / file).read_text("utf-8")
    assert good in text
    (service / file).write_text(text.replace(good, bad), "utf-8")
    code, output = lint(LINTERS[name], service)
    assert code != 0, output
