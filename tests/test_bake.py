"""What the template makes of each choice, and that it makes the same each time."""

import fnmatch
import hashlib
import itertools
import ntpath
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from cookiecutter.main import cookiecutter

from tests.template import CHOICES, CI_FILES, PARSERS, files, is_copied, pruned
from tools import bake as baking
from tools.bake import bake, copy_template
from tools.pythons import SUPPORTED

EACH_CHOICE = [{question: choice} for question, choices in CHOICES.items() for choice in choices]
ALL_CHOICES = [
    dict(zip(CHOICES, choices, strict=True)) for choices in itertools.product(*CHOICES.values())
]

# sha256 of the words of the licenses' texts in the SPDX list, joined by single spaces, without the
# line that names the copyright holder.
LICENSE_WORDS = {
    "MIT": "7c9b48b52decb9837c70f608678129e1ac79e056829c8d1e82e8cdd8aed562f8",
    "BSD-3-Clause": "77bebd765dc6e78c3feb4e9856b5d733a736a0ce9621764f9a604daf488d6941",
    "Apache-2.0": "0649bc87ac07c40d996369e9e058b11734e3eedb25ae8be9e6293f1efb340353",
}

Bakery = Callable[[dict[str, str]], Path]


def described(answers: dict[str, str]) -> str:
    """Name a set of answers in the output of pytest."""
    return ",".join(answers.values())


@pytest.fixture(scope="session")
def bakery(tmp_path_factory: pytest.TempPathFactory) -> Bakery:
    """Give a function that bakes each set of answers once; its services are for reading only."""
    services: dict[str, Path] = {}

    def baked(answers: dict[str, str]) -> Path:
        complete = {question: choices[0] for question, choices in CHOICES.items()} | answers
        key = described(complete)
        if key not in services:
            services[key] = bake(tmp_path_factory.mktemp("service"), **complete)
        return services[key]

    return baked


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the template and return the folder of the service in it."""
    return copy_template(tmp_path_factory.mktemp("template")) / "{{cookiecutter.project_slug}}"


@pytest.mark.parametrize("answers", ALL_CHOICES, ids=described)
def test_every_set_of_choices_is_in_the_service_as_answered(
    bakery: Bakery, answers: dict[str, str]
) -> None:
    """License, Python and CI of a service are the chosen ones, whatever the other choices are."""
    service = bakery(answers)
    license_ = tomllib.loads((service / "pyproject.toml").read_text())["project"]["license"]
    assert license_.removeprefix("LicenseRef-") == answers["license"]
    assert (service / ".python-version").read_text() == f"{answers['python_version']}\n"
    assert {name for name in files(service) if name.startswith(".git")} == {
        ".gitattributes",
        ".gitignore",
        *CI_FILES[answers["ci"]],
    }


def test_the_defaults_alone_make_a_service(tmp_path: Path) -> None:
    """Nothing needs an answer; the folder takes the name of the default service."""
    assert bake(tmp_path) == tmp_path / "my-service"


def test_the_folder_is_named_after_the_service(tmp_path: Path) -> None:
    """The slug follows from the name unless it is answered."""
    assert bake(tmp_path, project_name="Café Söze: Orders!").name == "cafe-soze-orders"


@pytest.mark.parametrize("answers", EACH_CHOICE, ids=described)
def test_no_jinja_is_left_in_rendered_files(bakery: Bakery, answers: dict[str, str]) -> None:
    """A file that cookiecutter renders holds no template language afterwards."""
    for name, content in files(bakery(answers)).items():
        assert is_copied(name) or not re.search(rb"\{\{|\{%|\{#", content), name


def test_no_answer_is_awaited_in_copied_files(source: Path) -> None:
    """A file that cookiecutter copies asks for no answer, which it would never get."""
    for name, content in files(source).items():
        assert not is_copied(name) or not re.search(rb"\{[{%].*cookiecutter\.", content), name


def test_every_rendered_file_needs_an_answer(source: Path) -> None:
    """What needs no answer is copied, so that nothing in it can be taken for Jinja."""
    for name, content in files(source).items():
        assert is_copied(name) or b"cookiecutter." in content, name


@pytest.mark.parametrize("answers", EACH_CHOICE, ids=described)
def test_toml_yaml_and_json_files_parse(bakery: Bakery, answers: dict[str, str]) -> None:
    """Every data file of the service is well-formed."""
    for name, content in files(bakery(answers)).items():
        if parse := PARSERS.get(Path(name).suffix):
            assert parse(content.decode()), name


def test_the_unrendered_project_file_is_toml_too(source: Path) -> None:
    """Tools that look for pyproject.toml also work in the template's own folder."""
    assert tomllib.loads((source / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("folder", ["app", "tests"])
def test_code_is_the_templates_byte_for_byte(bakery: Bakery, source: Path, folder: str) -> None:
    """What is linted, typed and tested in place is what the user gets."""
    assert files(bakery({}) / folder) == files(source / folder)


@pytest.mark.parametrize("ci", CI_FILES)
def test_a_service_holds_the_tracked_files_and_no_other(
    bakery: Bakery, source: Path, ci: str
) -> None:
    """Only the CI files that were not chosen are missing; no cache and no answer adds a file."""
    assert files(bakery({"ci": ci})).keys() == files(source).keys() - pruned(ci)


@pytest.mark.parametrize("ci", CI_FILES)
def test_no_folder_is_empty(bakery: Bakery, ci: str) -> None:
    """Pruning takes the folder with its last file."""
    folders = [path for path in bakery({"ci": ci}).rglob("*") if path.is_dir()]
    assert all(any(folder.iterdir()) for folder in folders)


def test_two_bakes_are_equal(bakery: Bakery, tmp_path: Path) -> None:
    """The same answers make the same bytes and the same modes: no date, no chance."""
    first, second = bakery({}), bake(tmp_path)
    assert files(first) == files(second)
    assert {path: (first / path).stat().st_mode for path in files(first)} == {
        path: (second / path).stat().st_mode for path in files(second)
    }


def test_baking_over_a_service_keeps_what_its_user_added(source: Path, tmp_path: Path) -> None:
    """With --overwrite-if-exists, no folder is emptied first and only our CI files are pruned."""
    service = bake(tmp_path)
    mine = [service / "app" / "mine" / "job.py", service / ".github" / "workflows" / "mine.yml"]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    cookiecutter(
        str(source.parent),
        no_input=True,
        extra_context={"ci": "none"},
        output_dir=str(tmp_path),
        overwrite_if_exists=True,
        default_config={"replay_dir": str(tmp_path / "replay")},
    )
    assert [path.read_text() for path in mine] == ["mine", "mine"]
    assert not (service / ".github" / "workflows" / "ci.yml").exists()


def test_no_folder_is_copied_whole(source: Path) -> None:
    """Cookiecutter would empty such a folder when it bakes over a service."""
    folders = [path for path in source.rglob("*") if path.is_dir()]
    assert [path for path in folders if is_copied(str(path.relative_to(source)))] == []


def test_the_same_files_are_copied_on_windows(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The patterns also match paths with backslashes."""
    here = {name: is_copied(name) for name in files(source)}
    monkeypatch.setattr(fnmatch.os.path, "normcase", ntpath.normcase)  # type: ignore[attr-defined]
    assert {name: is_copied(name.replace("/", "\\")) for name in here} == here


@pytest.mark.parametrize("license_", LICENSE_WORDS)
def test_license_texts_are_those_of_spdx(bakery: Bakery, license_: str) -> None:
    """Word for word, but for the line of the copyright holder, which has no year."""
    text = (bakery({"license": license_}) / "LICENSE").read_text()
    words = text.replace("Copyright (c) Your Name\n", "", 1).split()
    assert hashlib.sha256(" ".join(words).encode()).hexdigest() == LICENSE_WORDS[license_]


@pytest.mark.parametrize("license_", CHOICES["license"])
def test_every_license_names_its_author(bakery: Bakery, license_: str) -> None:
    """One line of each license names the copyright holder."""
    lines = (bakery({"license": license_}) / "LICENSE").read_text().splitlines()
    assert [line.strip() for line in lines].count("Copyright (c) Your Name") == 1


def test_a_proprietary_service_reserves_all_rights(bakery: Bakery) -> None:
    """It grants nothing, and its metadata refers to its own license text."""
    service = bakery({"license": "Proprietary"})
    assert "All rights reserved." in (service / "LICENSE").read_text()
    project = tomllib.loads((service / "pyproject.toml").read_text())["project"]
    assert project["license"] == "LicenseRef-Proprietary"


@pytest.mark.parametrize(
    ("email", "authors"),
    [
        ("", [{"name": "Your Name"}]),
        ("ada@example.com", [{"name": "Your Name", "email": "ada@example.com"}]),
    ],
)
def test_the_metadata_has_an_email_only_if_one_was_given(
    tmp_path: Path, email: str, authors: list[dict[str, str]]
) -> None:
    """An empty email would not be valid metadata."""
    text = (bake(tmp_path, author_email=email) / "pyproject.toml").read_text()
    assert tomllib.loads(text)["project"]["authors"] == authors


def test_fastapi_finds_the_application(bakery: Bakery) -> None:
    """`fastapi run` and `fastapi dev` read the entry point from pyproject.toml."""
    text = (bakery({}) / "pyproject.toml").read_text()
    assert tomllib.loads(text)["tool"]["fastapi"] == {"entrypoint": "app.main:create_app"}


def test_the_github_workflow_may_only_read_and_runs_pinned_actions(bakery: Bakery) -> None:
    """A moved tag or a stray token can do no harm, and a hanging job ends."""
    workflow = yaml.safe_load((bakery({}) / ".github/workflows/ci.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 15
        for step in job["steps"]:
            assert "run" in step or re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"])


def test_dependabot_looks_after_all_that_is_pinned(bakery: Bakery) -> None:
    """The locked lists, the base image and the actions."""
    dependabot = yaml.safe_load((bakery({}) / ".github/dependabot.yml").read_text())
    assert {update["package-ecosystem"] for update in dependabot["updates"]} == {
        "uv",
        "docker",
        "github-actions",
    }


def test_both_ci_run_the_same_checks(bakery: Bakery) -> None:
    """GitHub and GitLab call the same targets of the Makefile."""
    github = yaml.safe_load((bakery({}) / ".github/workflows/ci.yml").read_text())
    gitlab = yaml.safe_load((bakery({"ci": "GitLab"}) / ".gitlab-ci.yml").read_text())
    host = " HOST=docker"  # where GitLab's engine publishes ports
    assert gitlab["check-image"]["script"] == [f"make check-image{host}"]
    for name, job in github["jobs"].items():
        commands = [command.removesuffix(host) for command in gitlab[name]["script"]]
        assert commands == [step["run"] for step in job["steps"] if "run" in step]


def test_both_ci_test_on_the_same_pythons(bakery: Bakery) -> None:
    """All that are supported."""
    github = yaml.safe_load((bakery({}) / ".github/workflows/ci.yml").read_text())
    gitlab = yaml.safe_load((bakery({"ci": "GitLab"}) / ".gitlab-ci.yml").read_text())
    assert github["jobs"]["test"]["strategy"]["matrix"]["python"] == list(SUPPORTED)
    assert gitlab["test"]["parallel"]["matrix"] == [{"PYTHON_VERSION": list(SUPPORTED)}]


def test_gitlab_runs_the_chosen_python(bakery: Bakery) -> None:
    """Its image is of the version that .python-version holds."""
    service = bakery({"ci": "GitLab", "python_version": "3.12"})
    gitlab = yaml.safe_load((service / ".gitlab-ci.yml").read_text())
    assert gitlab["default"]["image"] == "python:3.12"


@pytest.mark.parametrize("version", CHOICES["python_version"])
def test_the_image_has_the_chosen_python(bakery: Bakery, version: str) -> None:
    """It is the one that .python-version holds, and there is no other in the Dockerfile."""
    dockerfile = (bakery({"python_version": version}) / "Dockerfile").read_text()
    assert re.findall(r"^FROM (\S+)", dockerfile, re.M) == [
        f"python:{version}-slim",
        "base",
        "base",
    ]


def test_make_and_compose_name_the_same_image(tmp_path: Path) -> None:
    """That of the project: what `make image` builds, `docker compose up` starts."""
    service = bake(tmp_path, project_slug="orders_2")
    compose = yaml.safe_load((service / "compose.yaml").read_text())
    assert compose["services"]["app"]["image"] == "orders_2"
    done = subprocess.run(
        ["make", "--dry-run", "image"], cwd=service, check=True, capture_output=True, text=True
    )
    assert "DOCKER_BUILDKIT=1 docker build --tag orders_2 ." in done.stdout.splitlines()


def test_the_last_words_say_what_to_type(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """After a bake two commands start the service."""
    bake(tmp_path, project_slug="orders")
    assert "    cd orders\n    make run\n" in capfd.readouterr().out


def test_bake_refuses_a_question_that_is_not_asked(tmp_path: Path) -> None:
    """Cookiecutter itself would ignore it, and a test of it would prove nothing."""
    with pytest.raises(ValueError, match="the template does not ask for licence"):
        bake(tmp_path, licence="MIT")


def test_a_copy_holds_what_git_would_track_and_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New files are copied; ignored and removed ones are not."""
    template = tmp_path / "template"
    template.mkdir()
    for name, text in {"kept": "", "new": "", "removed": "", ".gitignore": "ignored\n"}.items():
        (template / name).write_text(text)
    (template / "ignored").write_text("")
    for arguments in (["init", "--quiet"], ["add", "kept", "removed"]):
        subprocess.run(["git", *arguments], cwd=template, check=True)
    (template / "removed").unlink()
    monkeypatch.setattr(baking, "TEMPLATE", template)
    assert files(copy_template(tmp_path / "copy")).keys() == {"kept", "new", ".gitignore"}
