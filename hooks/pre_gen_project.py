"""Refuse an answer that no service can be made from: one line, before any file is written.

Cookiecutter renders this file, runs it in the new folder, and removes that folder when it exits
with 1. The slug names that folder, so `__folder` in cookiecutter.json has already replaced one
that could lead elsewhere or that no file system takes; `__answered_slug` is what was answered.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata

# Exact for every answer: JSON is ASCII here, its backslashes come in the pairs that a raw string
# reads too, and it never has three quotes in a row.
ANSWERS = json.loads(r"""{{ cookiecutter | jsonify }}""")

LENGTH_MAX = {
    "project_name": 100,
    "project_slug": 50,  # a DNS label holds 63, and images and containers add to the name
    "description": 300,
    "author_name": 100,
    "author_email": 254,  # RFC 5321, section 4.5.3.1.3
}

EXAMPLE = {
    "project_name": "My Service",
    "project_slug": "my-service",
    "description": "Keeps the sessions of our customers.",
    "author_name": "Ada Lovelace",
    "author_email": "ada@example.com",
}

MAY_BE_EMPTY = {"description", "author_email"}

# Controls, lone surrogates, line and paragraph separators: in TOML, Markdown and UTF-8 they either
# cannot be written or end the line.
FORBIDDEN_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}

SLUG = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*")

# Windows opens a device, not a folder, by these names; Docker makes no image of the last one.
RESERVED = re.compile(r"con|prn|aux|nul|(?:com|lpt)[0-9]|scratch")

WORD = r"[^\s@\"(),:;<>\[\\\].]+"
LABEL = r"[^\W_]+(?:-+[^\W_]+)*"
EMAIL = re.compile(rf"{WORD}(?:\.{WORD})*@{LABEL}(?:\.{LABEL})+")


def broken_rule(question: str, answer: object) -> str | None:
    """Return the rule that the answer breaks, or None."""
    if not isinstance(answer, str):
        return "must be text"
    if len(answer) > LENGTH_MAX[question]:
        return f"must have at most {LENGTH_MAX[question]} characters, not {len(answer)}"
    if any(unicodedata.category(character) in FORBIDDEN_CATEGORIES for character in answer):
        return "must be one line without control characters"
    if not answer.strip():
        return None if question in MAY_BE_EMPTY else "must not be empty"
    if question == "project_slug" and not SLUG.fullmatch(answer):
        return "must be lower-case letters and digits, with single - or _ between them"
    if question == "project_slug" and RESERVED.fullmatch(answer):
        return "must not be a name that Windows or Docker has reserved"
    if question == "author_email" and not EMAIL.fullmatch(answer):
        return "must be empty or an email address"
    return None


def main() -> None:
    """Check each answer; exit with 1 at the first that breaks a rule."""
    for question, example in EXAMPLE.items():
        answer = ANSWERS["__answered_slug" if question == "project_slug" else question]
        if rule := broken_rule(question, answer):
            shown = repr(answer)
            if len(shown) > 80:
                shown = f"{shown[:60]}..."
            sys.exit(f"{question} {shown} {rule}; for example: {example}")


main()
