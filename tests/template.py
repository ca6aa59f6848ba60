"""The template and what it makes, as several tests look at them."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from cookiecutter.generate import is_copy_only_path

from tools.bake import TEMPLATE

QUESTIONS: dict[str, Any] = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
"""All of cookiecutter.json: each question with its default, or its choices."""

ASKED = [question for question in QUESTIONS if not question.startswith("_")]

CHOICES: dict[str, list[str]] = {
    question: QUESTIONS[question] for question in ASKED if isinstance(QUESTIONS[question], list)
}

CI_FILES = {
    "GitHub": {".github/workflows/ci.yml", ".github/dependabot.yml"},
    "GitLab": {".gitlab-ci.yml"},
    "none": set(),
}

PARSERS: dict[str, Callable[[str], object]] = {
    ".toml": tomllib.loads,
    ".yml": yaml.safe_load,
    ".yaml": yaml.safe_load,
    ".json": json.loads,
}


def tree(directory: Path) -> dict[Path, bytes | None]:
    """Return each file below the directory with its bytes, and each folder with None."""
    return {path: path.read_bytes() if path.is_file() else None for path in directory.rglob("*")}


def files(directory: Path) -> dict[str, bytes]:
    """Return what each file below the directory holds."""
    return {
        path.relative_to(directory).as_posix(): content
        for path, content in tree(directory).items()
        if content is not None
    }


def is_copied(name: str) -> bool:
    """Say whether cookiecutter copies what has that name instead of rendering it."""
    return bool(is_copy_only_path(name, {"cookiecutter": QUESTIONS}))


def pruned(ci: str) -> set[str]:
    """Return the files that a service with that CI lacks."""
    return set().union(*CI_FILES.values()) - CI_FILES[ci]
