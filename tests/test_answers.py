"""What is answered at cookiecutter's prompts: refused in one line, or in the service as exact data.

Answers go through the prompts because cookiecutter renders those of its command line as Jinja.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from cookiecutter.exceptions import FailedHookException  # type: ignore[import-untyped]
from cookiecutter.main import cookiecutter  # type: ignore[import-untyped]
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from packaging.utils import canonicalize_name

from tools.bake import TEMPLATE, copy_template

QUESTIONS: dict[str, Any] = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))

# A bake takes a quarter of a second: few in a normal run, more where time allows.
EXAMPLES = int(os.environ.get("ANSWER_EXAMPLES", "20"))

# cookiecutter removes a refused folder with an argument that Python 3.12 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*onerror:DeprecationWarning")

EXAMPLE = {
    "project_name": "My Service",
    "project_slug": "my-service",
    "description": "Keeps the sessions of our customers.",
    "author_name": "Ada Lovelace",
    "author_email": "ada@example.com",
}

HOSTILE = [
    """ ' " ''' \"\"\" """,
    '"""); open("pwned", "w"); print("""',
    "a\\",
    'a\\"',
    "\\\\ \\n \\u0041 \\N{BULLET} \\x",
    "{{ 7*7 }} {% raw %} {# gone #} {{ cookiecutter }}",
    "${{ secrets.GITHUB_TOKEN }} $(touch pwned) `touch pwned` %PATH%",
    "# a *b* _c_ [d](e) <script>alert(1)</script> & &amp; ]] ---",
    "\N{PILE OF POO} \N{MUSICAL SYMBOL G CLEF} \N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET}",
    "\N{HEBREW LETTER ALEF}\N{ARABIC LETTER ALEF} \N{RIGHT-TO-LEFT OVERRIDE}abc",
    "Cafe\N{COMBINING ACUTE ACCENT} \N{ZERO WIDTH NO-BREAK SPACE}\N{NO-BREAK SPACE}x",
    "\ue000 \ufffe \U0010ffff",
    "null",
    "x" * 100,
]

BAD = {
    "project_name": [
        "   ",
        "two\nlines",
        "two\rlines",
        "two\u2028lines",
        "two\x85lines",
        "bell\a!",
        "nul\0!",
        "delete\x7f!",
        "escape \x1b[31mred",
        "lone \ud83d surrogate",
        "x" * 101,
        "x" * 10_000,
        '"' * 10_000,
    ],
    "project_slug": [
        "   ",
        ".",
        "..",
        "../escaped",
        "../../escaped",
        "a/b",
        "kept/b/c",
        "a/../../b",
        "a\\b",
        "..\\escaped",
        "C:service",
        "~",
        ".hidden",
        "My-Service",
        "my service",
        "my.service",
        "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
        "-service",
        "service-",
        "_service",
        "my--service",
        "con",
        "nul",
        "com1",
        "lpt9",
        "two\nlines",
        "nul\0!",
        "lone \ud83d surrogate",
        "{{ 7*7 }}",
        "$(touch pwned)",
        "x" * 51,
        "x" * 10_000,
        "a/" * 5_000 + "b",
    ],
    "description": ["two\nlines", "tab\tbed", "x" * 301],
    "author_name": ["   ", "two\nlines", "lone \udcff surrogate", "x" * 101],
    "author_email": [
        "ada",
        "ada@",
        "@example.com",
        "ada@example",
        "ada@@example.com",
        "ada@ex@ample.com",
        "ada@-example.com",
        "ada@example-.com",
        "ada@example..com",
        ".ada@example.com",
        "a..da@example.com",
        "a da@example.com",
        'a"da@example.com',
        "a\\da@example.com",
        "Ada <ada@example.com>",
        "ada@example.com, bob@example.com",
        "ada@example.com\nbob@example.com",
        "a" * 250 + "@example.com",
    ],
}
BAD_ANSWERS = [(question, answer) for question, answers in BAD.items() for answer in answers]


def shortened(value: object) -> str | None:
    """Name a long answer in the output of pytest by its beginning."""
    return ascii(value[:20]) if isinstance(value, str) else None


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the template."""
    return copy_template(tmp_path_factory.mktemp("template") / "copy")


@pytest.fixture(scope="module")
def harmless(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generate a service from the defaults."""
    return generate(template, tmp_path_factory.mktemp("harmless"))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Make a folder that holds a file and an empty folder already."""
    (tmp_path / "target" / "kept").mkdir(parents=True)
    (tmp_path / "target" / "kept.txt").write_text("kept")
    return tmp_path / "target"


def typed(answers: dict[str, str]) -> list[str]:
    """Return what is typed at each prompt; nothing where the default is taken."""
    return [answers.get(question, "") for question in QUESTIONS if not question.startswith("_")]


def generate(template: Path, target: Path, **answers: str) -> Path:
    """Generate a service into the target by answering at the prompts."""
    with (
        tempfile.TemporaryDirectory() as replays,
        mock.patch("builtins.input", side_effect=typed(answers)),
    ):
        project = cookiecutter(
            str(template), output_dir=str(target), default_config={"replay_dir": replays}
        )
    return Path(project)


def tree(directory: Path) -> dict[Path, bytes | None]:
    """Return each file below the directory with its bytes, and each folder with None."""
    return {path: path.read_bytes() if path.is_file() else None for path in directory.rglob("*")}


def refusal(capfd: pytest.CaptureFixture[str], template: Path, target: Path, **answers: str) -> str:
    """Generate, expect a refusal, and return all that it said on stderr."""
    capfd.readouterr()
    with pytest.raises(FailedHookException):
        generate(template, target, **answers)
    return capfd.readouterr().err


def assert_exact(service: Path, name: str, description: str, author: str) -> None:
    """Check that the service holds those answers, and nothing else by them."""
    project = tomllib.loads((service / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["description"] == description
    assert project["authors"] == [{"name": author}]
    license_ = (service / "LICENSE").read_text(encoding="utf-8")
    assert f"Copyright (c) {author}\n" in license_
    assert (service / "README.md").read_text(encoding="utf-8").startswith(f"# {name}\n")


@pytest.mark.parametrize(("question", "answer"), BAD_ANSWERS, ids=shortened)
def test_a_bad_answer_is_refused_in_one_line(
    capfd: pytest.CaptureFixture[str], template: Path, target: Path, question: str, answer: str
) -> None:
    """The line names the question, the answer, the rule and an example that would pass."""
    said = refusal(capfd, template, target, **{question: answer})
    start = f"{question} {answer.strip()!r}"[:60]
    assert said.startswith(start)
    assert " must " in said
    assert said.endswith(f"; for example: {EXAMPLE[question]}\n")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(("question", "answer"), BAD_ANSWERS, ids=shortened)
def test_a_refusal_leaves_everything_as_it_was(
    template: Path, tmp_path: Path, target: Path, question: str, answer: str
) -> None:
    """No file and no folder is left in the target or around it, and none is removed."""
    before = tree(tmp_path)
    with pytest.raises(FailedHookException):
        generate(template, target, **{question: answer})
    assert tree(tmp_path) == before


def test_an_absolute_path_is_refused_and_not_made(
    capfd: pytest.CaptureFixture[str], template: Path, tmp_path: Path, target: Path
) -> None:
    """A slug cannot lead out of the target even where no `..` is needed."""
    before = tree(tmp_path)
    assert "project_slug" in refusal(
        capfd, template, target, project_slug=str(tmp_path / "elsewhere" / "service")
    )
    assert tree(tmp_path) == before


def test_a_long_answer_is_refused_by_its_beginning(
    capfd: pytest.CaptureFixture[str], template: Path, target: Path
) -> None:
    """The line can be read whatever was pasted at the prompt."""
    assert len(refusal(capfd, template, target, author_name="x" * 10_000)) < 200


def test_the_examples_of_the_refusals_are_accepted(template: Path, target: Path) -> None:
    """Whoever types the example goes on."""
    assert generate(template, target, **EXAMPLE) == target / "my-service"


def test_the_command_line_refuses_as_well(template: Path, target: Path) -> None:
    """The command exits with 1 and our line alone is on its stderr."""
    config = target / "config.yaml"
    config.write_text(json.dumps({"replay_dir": str(target / "replays")}))
    process = subprocess.run(
        [sys.executable, "-m", "cookiecutter", str(template), "--output-dir", str(target)],
        input="\n".join(typed({"project_slug": "../escaped"})) + "\n",
        env={**os.environ, "COOKIECUTTER_CONFIG": str(config)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert process.stderr == (
        "project_slug '../escaped' must be lower-case letters and digits, with single - or _ "
        "between them; for example: my-service\n"
    )


def test_the_description_may_be_empty(template: Path, target: Path) -> None:
    """A space at the prompt says that there is none."""
    service = generate(template, target, description=" ")
    project = tomllib.loads((service / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["description"] == ""


def test_a_long_name_has_a_default_slug_that_is_accepted(template: Path, target: Path) -> None:
    """Where the name may be longer than the slug, the slug is cut."""
    name = "x" * 100
    assert generate(template, target, project_name=name) == target / name[:50]


@pytest.mark.parametrize("answer", HOSTILE, ids=shortened)
def test_a_hostile_answer_is_exact_data(template: Path, target: Path, answer: str) -> None:
    """Quotes, backslashes, templates, commands and far planes of Unicode arrive as typed."""
    service = generate(
        template,
        target,
        project_name=answer,
        project_slug="my-service",
        description=answer,
        author_name=answer,
    )
    text = answer.strip()
    assert_exact(service, name=text, description=text, author=text)


@pytest.mark.parametrize("answer", HOSTILE, ids=shortened)
def test_a_hostile_answer_runs_nothing(
    template: Path, harmless: Path, target: Path, answer: str
) -> None:
    """It adds no file to those that harmless answers give."""
    before = {*tree(target), target / "my-service"}
    service = generate(
        template, target, project_name=answer, project_slug="my-service", author_name=answer
    )
    files = {service / path.relative_to(harmless) for path in tree(harmless)}
    assert tree(target).keys() == before | files


@pytest.mark.parametrize(
    "answer",
    [
        "ada@example.com",
        "o'brien+{{7*7}}@xn--bcher-kva.example",
        "\N{GREEK SMALL LETTER ALPHA}@b\N{LATIN SMALL LETTER U WITH DIAERESIS}ro.example",
    ],
)
def test_an_email_is_exact_data(template: Path, target: Path, answer: str) -> None:
    """A possible address is accepted, whatever its alphabet."""
    text = (generate(template, target, author_email=answer) / "pyproject.toml").read_text("utf-8")
    assert tomllib.loads(text)["project"]["authors"][0]["email"] == answer


@contextlib.contextmanager
def new_target() -> Iterator[Path]:
    """Give each example of Hypothesis a folder of its own."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


ANY_TEXT = st.one_of(
    st.text(max_size=110),
    st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=100),
    st.text("\"'\\{}%# a", min_size=1, max_size=20),
)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # capfd is emptied before use
)
@given(name=ANY_TEXT, description=ANY_TEXT, author=ANY_TEXT)
@example(name="a", description="", author="a")
def test_any_answers_are_exact_data_or_refused_in_one_line(
    capfd: pytest.CaptureFixture[str], template: Path, name: str, description: str, author: str
) -> None:
    """There is no third way, such as a crash or a changed answer."""
    answers = {"project_name": name, "description": description, "author_name": author}
    expected = {
        question: answer.strip() if answer else QUESTIONS[question]
        for question, answer in answers.items()
    }
    with new_target() as target:
        capfd.readouterr()
        try:
            service = generate(template, target, project_slug="my-service", **answers)
        except FailedHookException:
            assert len(capfd.readouterr().err.splitlines()) == 1
            assert tree(target) == {}
        else:
            assert_exact(
                service,
                name=expected["project_name"],
                description=expected["description"],
                author=expected["author_name"],
            )


@settings(max_examples=EXAMPLES, deadline=None)
@given(slug=st.text("ab1-_./\\~A\0\N{LATIN SMALL LETTER E WITH ACUTE}", min_size=1, max_size=8))
def test_any_slug_is_a_valid_distribution_name_or_refused(template: Path, slug: str) -> None:
    """An accepted slug names one new folder in the target and is a canonical name but for _."""
    with new_target() as target:
        try:
            service = generate(template, target, project_slug=slug)
        except FailedHookException:
            assert tree(target) == {}
        else:
            assert list(target.iterdir()) == [service]
            assert service.name == slug
            assert canonicalize_name(slug, validate=True) == slug.replace("_", "-")


@settings(max_examples=EXAMPLES, deadline=None)
@given(name=st.text(min_size=1, max_size=100))
def test_the_default_slug_of_any_name_is_valid_or_refused(template: Path, name: str) -> None:
    """A name of any alphabet leads to a folder in the target, or to a refusal."""
    with new_target() as target:
        try:
            service = generate(template, target, project_name=name)
        except FailedHookException:
            assert tree(target) == {}
        else:
            assert service.parent == target
            assert canonicalize_name(service.name, validate=True) == service.name
