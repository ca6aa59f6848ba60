"""The second engine: cruft, with which services take later versions of the template."""

import subprocess
from pathlib import Path

import cruft
import pytest

from tools.bake import bake, copy_template


def git(directory: Path, *arguments: str) -> None:
    """Run git as nobody in particular, without the settings of this machine's user."""
    identity = ("-c", "user.name=Nobody", "-c", "user.email=nobody@example.com")
    subprocess.run(
        ["git", *identity, "-c", "commit.gpgsign=false", *arguments], cwd=directory, check=True
    )


def commit(directory: Path) -> None:
    """Commit all that is in the directory, in a repository that is made if there is none."""
    git(directory, "init", "--quiet")
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--message=All")


def files(directory: Path) -> dict[Path, bytes]:
    """Return what each file below the directory holds, but for those of git and cruft."""
    return {
        path.relative_to(directory): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
        and path.name != ".cruft.json"
        and path.relative_to(directory).parts[0] != ".git"
    }


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """Make a git repository of the template, as cruft needs one."""
    directory = copy_template(tmp_path / "template")
    commit(directory)
    return directory


@pytest.mark.parametrize("ci", ["GitHub", "none"])
def test_cruft_makes_the_same_bytes_as_cookiecutter(
    template: Path, tmp_path: Path, ci: str
) -> None:
    """Nothing in the service depends on the engine, and pruning works in both."""
    by_cruft = cruft.create(
        str(template), tmp_path / "cruft", default_config=True, extra_context={"ci": ci}
    )
    assert files(by_cruft) == files(bake(tmp_path / "cookiecutter", ci=ci))


def test_the_last_words_are_not_said_by_cruft(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """At each update they would name a folder that is gone by then."""
    cruft.create(str(template), tmp_path / "cruft", default_config=True)
    assert "make run" not in capfd.readouterr().out


def test_an_update_keeps_what_the_user_edited(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service takes the template's change to one line and keeps its user's to another."""
    service = cruft.create(str(template), tmp_path / "cruft", default_config=True)
    ignored = service / ".gitignore"
    ignored.write_text(ignored.read_text() + "/mine/\n")
    commit(service)
    upstream = template / "{{cookiecutter.project_slug}}" / ".gitignore"
    upstream.write_text("/theirs/\n" + upstream.read_text())
    commit(template)
    monkeypatch.setenv("COOKIECUTTER_CONFIG", str(empty_config(tmp_path)))
    assert cruft.update(service, skip_apply_ask=True)
    lines = ignored.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("/theirs/", "/mine/")


def empty_config(directory: Path) -> Path:
    """Write a configuration of cookiecutter without any setting: an update reads the user's."""
    path = directory / "cookiecutter.yaml"
    path.write_text("{}\n")
    return path
