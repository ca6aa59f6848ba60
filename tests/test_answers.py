"""What is answered at cookiecutter's prompts: refused in one line, or in the service as exact data.

Answers go through the prompts because cookiecutter renders those of its command line as Jinja.
`pytest -s` or `pytest -rA` shows how many sets of answers were tried, and what became of them.
"""

import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
import yaml
from cookiecutter.exceptions import FailedHookException
from cookiecutter.main import cookiecutter
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from packaging.utils import canonicalize_name
from slugify import slugify

from tests.template import ASKED, CHOICES, PARSERS, QUESTIONS, files, is_copied, pruned, tree
from tools.bake import copy_template

# How many sets of answers are tried, and how many services get their own lint and types.
EXAMPLES = int(os.environ.get("ANSWER_EXAMPLES", "300"))
LINTED = int(os.environ.get("ANSWER_LINTED", "3"))

# cookiecutter removes a refused folder with an argument that Python 3.12 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*onerror:DeprecationWarning")

EXAMPLE = {
    "project_name": "My Service",
    "project_slug": "my-service",
    "description": "Keeps the sessions of our customers.",
    "author_name": "Ada Lovelace",
    "author_email": "ada@example.com",
}

PLACEHOLDER = re.compile(r"\{\{ cookiecutter\.(\w+) \}\}")

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

# Without quotes, YAML reads most of these slugs as something else than text.
YAML_WORDS = ["null", "true", "no", "off", "0", "007", "1_000", "0x1f", "0b1", "1e3", "2024-01-01"]

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
        "scratch",
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
NO_GARBAGE: Mapping[str, list[str]] = {}

BAD_ANSWERS = [(question, answer) for question, answers in BAD.items() for answer in answers]


@dataclass(frozen=True)
class Reference:
    """What the service's folder holds: as a template, and made from harmless answers."""

    template: dict[str, bytes]
    harmless: dict[str, str]
    licenses: dict[str, str]


def shortened(value: object) -> str | None:
    """Name a long answer in the output of pytest by its beginning."""
    return ascii(value[:20]) if isinstance(value, str) else None


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the template."""
    return copy_template(tmp_path_factory.mktemp("template") / "copy")


@pytest.fixture(scope="module")
def reference(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """Generate a service with each license from harmless answers."""
    services = {
        license_: generate(template, tmp_path_factory.mktemp("harmless"), license=str(number))
        for number, license_ in enumerate(CHOICES["license"], 1)
    }
    return Reference(
        template=files(template / "{{cookiecutter.project_slug}}"),
        harmless={name: content.decode() for name, content in files(services["MIT"]).items()},
        licenses={
            license_: (service / "LICENSE").read_text(encoding="utf-8")
            for license_, service in services.items()
        },
    )


@pytest.fixture(scope="module")
def counts() -> Iterator[Counter[str]]:
    """Count what became of the answers, and show that after the last test."""
    counts = Counter[str]()
    yield counts
    kinds = [kind for kind in ("tried", "accepted", "refused", "linted") if counts[kind]]
    print("\nanswers:", ", ".join(f"{counts[kind]} {kind}" for kind in kinds))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Make a folder that holds a file and an empty folder already."""
    (tmp_path / "target" / "kept").mkdir(parents=True)
    (tmp_path / "target" / "kept.txt").write_text("kept")
    return tmp_path / "target"


def typed(answers: Mapping[str, str], garbage: Mapping[str, list[str]] = NO_GARBAGE) -> list[str]:
    """Return what is typed at the prompts: garbage first, then nothing to take the default."""
    return [
        line
        for question in ASKED
        for line in [*garbage.get(question, []), answers.get(question, "")]
    ]


def understood(answers: Mapping[str, str]) -> dict[str, str]:
    """Return what has to be in the service when that was typed."""
    values: dict[str, str] = {}
    for question in ASKED:
        answer = answers.get(question, "")
        if question in CHOICES:
            values[question] = CHOICES[question][int(answer or "1") - 1]
        elif answer:
            values[question] = answer.strip()
        elif question == "project_slug":
            values[question] = slugify(values["project_name"], max_length=50)
        else:
            values[question] = QUESTIONS[question]
    return values


def generate(
    template: Path,
    target: Path,
    garbage: Mapping[str, list[str]] = NO_GARBAGE,
    /,
    **answers: str,
) -> Path:
    """Generate a service into the target by answering at the prompts."""
    with (
        tempfile.TemporaryDirectory() as temporary,
        mock.patch("tempfile.tempdir", temporary),  # cookiecutter leaves its copies of hooks there
        mock.patch("builtins.input", side_effect=typed(answers, garbage)),
    ):
        project = cookiecutter(
            str(template), output_dir=str(target), default_config={"replay_dir": temporary}
        )
    return Path(project)


def refusal(capfd: pytest.CaptureFixture[str], template: Path, target: Path, **answers: str) -> str:
    """Generate, expect a refusal, and return all that it said on stderr."""
    capfd.readouterr()
    with pytest.raises(FailedHookException):
        generate(template, target, **answers)
    return capfd.readouterr().err


def assert_one_line(said: str) -> None:
    """Check that what was said is a question, an answer, a rule, and an example that would pass."""
    question, _, rest = said.partition(" ")
    assert re.fullmatch(rf".+ must .+; for example: {re.escape(EXAMPLE[question])}\n", rest)
    assert len(said.splitlines()) == 1


def assert_exact(reference: Reference, service: Path, values: dict[str, str]) -> None:
    """Check that the service differs from a harmless one by those answers and nothing else."""
    slug, python = values["project_slug"], values["python_version"]
    assert service.name == slug
    assert canonicalize_name(slug, validate=True) == slug.replace("_", "-")

    made = files(service)
    assert made.keys() == reference.template.keys() - pruned(values["ci"])
    parents = {service / parent for name in made for parent in Path(name).parents}
    assert {service, *service.rglob("*")} == {service / name for name in made} | parents
    for name, content in made.items():
        assert not is_copied(name) or content == reference.template[name], name
        if parse := PARSERS.get(Path(name).suffix):
            assert parse(content.decode()), name

    rendered = {name: content.decode() for name, content in made.items() if not is_copied(name)}

    project = tomllib.loads(reference.harmless["pyproject.toml"])
    project["project"]["name"] = slug
    project["project"]["description"] = values["description"]
    author = {"name": values["author_name"], "email": values["author_email"]}
    project["project"]["authors"] = [{key: value for key, value in author.items() if value}]
    prefix = "LicenseRef-" if values["license"] == "Proprietary" else ""
    project["project"]["license"] = prefix + values["license"]
    assert tomllib.loads(rendered.pop("pyproject.toml")) == project

    readme = rendered.pop("README.md")
    assert readme.startswith(f"# {values['project_name']}\n\n{values['description']}\n")
    assert readme == PLACEHOLDER.sub(
        lambda match: values[match[1]], reference.template["README.md"].decode()
    )

    line = "Copyright (c) {author_name}\n"
    text = reference.licenses[values["license"]]
    assert rendered.pop("LICENSE") == text.replace(
        line.format_map(QUESTIONS), line.format_map(values)
    )

    assert rendered.pop(".python-version") == f"{python}\n"

    compose = yaml.safe_load(reference.harmless["compose.yaml"])
    compose["services"]["app"]["image"] = slug
    assert yaml.safe_load(rendered.pop("compose.yaml")) == compose

    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", rendered.pop("Dockerfile"), re.MULTILINE)
    images = {image for image, _ in stages} - {stage for _, stage in stages}
    assert images == {f"python:{python}-slim"}

    if values["ci"] == "GitLab":
        pipeline = yaml.safe_load(rendered.pop(".gitlab-ci.yml"))
        assert pipeline["default"]["image"] == f"python:{python}"

    assert not rendered, "cookiecutter renders a file that is not looked at here"


@pytest.mark.parametrize(("question", "answer"), BAD_ANSWERS, ids=shortened)
def test_a_bad_answer_is_refused_in_one_line(
    capfd: pytest.CaptureFixture[str], template: Path, target: Path, question: str, answer: str
) -> None:
    """The line names the question, the answer, the rule and an example that would pass."""
    said = refusal(capfd, template, target, **{question: answer})
    assert_one_line(said)
    assert said.startswith(f"{question} {answer.strip()!r}"[:60])


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
def test_a_hostile_answer_is_exact_data_and_runs_nothing(
    template: Path, reference: Reference, target: Path, answer: str
) -> None:
    """Quotes, templates, commands, far planes of Unicode arrive as typed, and add no file."""
    answers = {"project_name": answer, "description": answer, "author_name": answer}
    answers["project_slug"] = "my-service"
    before = set(target.iterdir())
    service = generate(template, target, **answers)
    assert_exact(reference, service, understood(answers))
    assert set(target.iterdir()) == before | {service}


@pytest.mark.parametrize("slug", YAML_WORDS)
def test_a_slug_that_is_a_word_of_yaml_is_exact_data(
    template: Path, reference: Reference, target: Path, slug: str
) -> None:
    """Neither a number, nor a truth, nor a date, nor nothing is made of it."""
    answers = {"project_slug": slug}
    assert_exact(reference, generate(template, target, **answers), understood(answers))


@pytest.mark.parametrize(
    "answer",
    [
        "ada@example.com",
        "o'brien+{{7*7}}@xn--bcher-kva.example",
        "\N{GREEK SMALL LETTER ALPHA}@b\N{LATIN SMALL LETTER U WITH DIAERESIS}ro.example",
    ],
)
def test_an_email_is_exact_data(
    template: Path, reference: Reference, target: Path, answer: str
) -> None:
    """A possible address is accepted, whatever its alphabet."""
    answers = {"author_email": answer}
    assert_exact(reference, generate(template, target, **answers), understood(answers))


# What means something to Jinja, shells, make, Docker, YAML, TOML, Markdown, GitHub or Python.
FRAGMENTS = [
    *HOSTILE,
    "{{ cookiecutter.project_slug }}{% endraw %}{% include 'README.md' %}{{ [].__class__ }}",
    "{%- if x -%}{{ '{{' }}{#- #}",
    "${{ github.token }} ::set-output name=x::y",
    "; touch pwned # && touch pwned | touch pwned > pwned",
    "$(shell touch pwned) $$PATH $@ %: FORCE\\",
    "FROM scratch # syntax=x ${PATH}",
    "key: value, - item, [a, b], {c: d}, !!python/name:os.system &a *a |- >+ ? @ `",
    "''' \"\"\" ]] [tool.x] = true",
    'r""" """ %s %(x)s {0} {x!r} \\u007b \\ud83d',
    "\N{LEFT-TO-RIGHT OVERRIDE}\N{RIGHT-TO-LEFT ISOLATE}\N{POP DIRECTIONAL ISOLATE}\u200b\u00ad",
]

GARBAGE = ["0", "5", "-1", "1.0", "1 2", "MIT", "3.12", "none", " ", "\N{ARABIC-INDIC DIGIT ONE}"]

ANY_TEXT = st.text(st.characters(), max_size=400)  # with controls and lone surrogates
ONE_LINE = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])
WORD = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Z"], exclude_characters='@"(),:;<>[]\\.'),
    min_size=1,
    max_size=20,
)
LABEL = st.text(st.characters(categories=["L", "Nd"]), min_size=1, max_size=20)

Text = st.SearchStrategy[str]


def joined(texts: Text, separator: str, most: int) -> Text:
    """Draw up to so many texts and join them."""
    return st.lists(texts, min_size=1, max_size=most).map(separator.join)


def good_line(most: int) -> Text:
    """Draw what has to be accepted: one line of up to so many characters, or nothing typed."""
    mixed = joined(st.sampled_from(FRAGMENTS) | st.text(ONE_LINE, max_size=20), "", 8)
    longest = st.sampled_from(FRAGMENTS).map(lambda text: text * most)
    lines = st.one_of(mixed, longest).map(lambda text: text[:most]).filter(str.strip)
    return st.one_of(lines, lines, lines, st.just(""))


def bad_line(question: str, most: int) -> Text:
    """Draw what is refused, most of the time."""
    control = st.sampled_from(
        ["\n", "\0", "\x1b[2J", "\x85", "\u2028", "\u2029", "\ud83d", "\udcff"]
    )
    too_long = st.tuples(st.sampled_from(FRAGMENTS), st.integers(most + 1, 20_000))
    return st.one_of(
        st.sampled_from(BAD[question]),
        st.tuples(good_line(most // 3), control, good_line(most // 3)).map("".join),
        too_long.map(lambda drawn: (drawn[0] * drawn[1])[: drawn[1]]),
        ANY_TEXT,
    )


def number(question: str) -> Text:
    """Draw the number of a choice, or nothing typed for the first."""
    numbers = [str(number) for number, _ in enumerate(CHOICES[question], 1)]
    return st.sampled_from(["", *numbers, *(f" {number} " for number in numbers)])


def garbage(question: str) -> st.SearchStrategy[list[str]]:
    """Draw lines after which a choice is asked for again."""
    numbers = [str(number) for number, _ in enumerate(CHOICES[question], 1)]
    lines = st.one_of(st.sampled_from([*GARBAGE, *FRAGMENTS]), ANY_TEXT)
    refused = lines.filter(lambda line: line != "" and line.strip() not in numbers)
    return st.one_of(st.just([]), st.lists(refused, max_size=3))


SLUG = st.one_of(
    st.from_regex(r"[a-z0-9]{1,9}(?:[-_][a-z0-9]{1,9}){0,4}", fullmatch=True),
    st.sampled_from([*YAML_WORDS, "x" * 50, "a-b_c-0", "con1", "com10"]),
).filter(lambda slug: not re.fullmatch("con|prn|aux|nul|com[0-9]|lpt[0-9]|scratch", slug))
WRONG_SLUG = st.one_of(
    st.sampled_from(BAD["project_slug"]),
    st.text("ab1-_./\\~A\0\N{LATIN SMALL LETTER E WITH ACUTE}", min_size=1, max_size=8),
    SLUG.map(str.upper),
    st.tuples(
        SLUG, st.sampled_from(["/", "/../", ".", "--", " ", "\n", "\N{MIDDLE DOT}"]), SLUG
    ).map("".join),
    ANY_TEXT,
)
EMAIL = st.tuples(joined(WORD, ".", 3), joined(LABEL, "-", 2), joined(LABEL, ".", 3)).map(
    lambda drawn: f"{drawn[0]}@{drawn[1]}.{drawn[2]}"
)

GOOD = st.fixed_dictionaries(
    {
        "project_name": good_line(100),
        "project_slug": SLUG,
        "description": st.just(" ") | good_line(300),
        "author_name": good_line(100),
        "author_email": st.one_of(EMAIL, EMAIL, st.sampled_from(["", " "])),
        **{question: number(question) for question in CHOICES},
    }
)
WILD = {
    "project_name": bad_line("project_name", 100),
    "project_slug": WRONG_SLUG,
    "description": bad_line("description", 300),
    "author_name": bad_line("author_name", 100),
    "author_email": bad_line("author_email", 254),
}
NO_WILD: dict[str, str] = {}
ONE_WILD = st.sampled_from(sorted(WILD)).flatmap(
    lambda question: st.fixed_dictionaries({question: WILD[question]})
)
DEFAULT_SLUG = st.fixed_dictionaries(  # of a name that is likely to have one
    {
        "project_name": good_line(100) | st.text(st.characters(categories=["L"]), min_size=1),
        "project_slug": st.just(""),
    }
)
SOME_WILD = st.fixed_dictionaries({}, optional=WILD)
ANY_WILD = st.one_of(st.just(NO_WILD), DEFAULT_SLUG, ONE_WILD, ONE_WILD, SOME_WILD)
ANY_GARBAGE = st.fixed_dictionaries({question: garbage(question) for question in CHOICES})


def test_any_answers_are_exact_data_or_refused_in_one_line(
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    template: Path,
    reference: Reference,
    counts: Counter[str],
) -> None:
    """There is no third way, such as a crash or a changed answer."""
    caplog.set_level(logging.CRITICAL, "cookiecutter")  # which logs a traceback for each refusal

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(good=GOOD, wild=ANY_WILD, garbage=ANY_GARBAGE)
    def try_answers(
        good: dict[str, str], wild: dict[str, str], garbage: dict[str, list[str]]
    ) -> None:
        answers = good | wild
        counts["tried"] += 1
        with tempfile.TemporaryDirectory() as directory:
            target = Path(directory, "two", "folders", "down")  # so that ../../x is seen
            target.mkdir(parents=True)
            before = tree(Path(directory))
            capfd.readouterr()
            try:
                service = generate(template, target, garbage, **answers)
            except FailedHookException:
                assert_one_line(capfd.readouterr().err)
                assert tree(Path(directory)) == before
                assert wild, "only good answers, but refused"
                counts["refused"] += 1
            else:
                assert capfd.readouterr().err == ""
                assert_exact(reference, service, understood(answers))
                made = set(Path(directory).rglob("*"))
                assert made == {*before, service, *service.rglob("*")}
                counts["accepted"] += 1

    try_answers()
    if counts["tried"] >= 200:
        assert counts["accepted"] >= 0.25 * counts["tried"], "too few of them reach the service"
        assert counts["refused"] >= 0.1 * counts["tried"], "too few of them test the refusal"


def test_a_service_of_any_answers_passes_its_own_lint_and_types(
    template: Path, tmp_path: Path, counts: Counter[str]
) -> None:
    """No answer gets into what ruff and mypy read, such as their settings."""
    caches = {name: str(tmp_path / name) for name in ("MYPY_CACHE_DIR", "RUFF_CACHE_DIR")}

    # Without shrinking, in which each step would take seconds.
    @settings(max_examples=LINTED, deadline=None, phases=[Phase.generate])
    @given(good=GOOD)
    def lint(good: dict[str, str]) -> None:
        with tempfile.TemporaryDirectory() as directory:
            service = generate(template, Path(directory), **good)
            for command in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
                process = subprocess.run(
                    [sys.executable, "-m", *command],
                    cwd=service,
                    env=os.environ | caches,
                    capture_output=True,
                    text=True,
                )
                assert process.returncode == 0, process.stdout + process.stderr
        counts["linted"] += 1

    lint()
