"""The proof that tests notice mistakes, on a service of one function."""

from pathlib import Path

import pytest

from tools import mutants

SERVICE = {
    "app/__init__.py": "",
    "app/sums.py": "def total(numbers: list[int]) -> int:\n    return sum(numbers)\n",
    "tests/test_sums.py": (
        "from app.sums import total\n\n\n"
        "def test_total_adds() -> None:\n    assert total([1, 2]) == 3\n"
    ),
    "tests/test_nothing.py": "def test_nothing() -> None:\n    assert True\n",
    "pytest.ini": "[pytest]\npythonpath = .\n",
}


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """Write the service, in a repository that ignores folders named data."""
    directory = tmp_path / "repository" / "service"
    for name, text in SERVICE.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    mutants.git(directory.parent, "init", "--quiet")
    (directory.parent / ".gitignore").write_text("data/\n")
    return directory


@pytest.fixture
def patches(tmp_path: Path) -> Path:
    """Make an empty folder of patches."""
    directory = tmp_path / "patches"
    directory.mkdir()
    return directory


def write_patch(
    patches: Path,
    new: str,
    *,
    name: str = "mutant",
    old: str = "    return sum(numbers)",
    header: str = "# tests: tests/test_sums.py\n",
) -> None:
    """Write a patch that replaces the one line of the one function."""
    (patches / f"{name}.patch").write_text(
        f"# The sum is wrong.\n{header}"
        "diff --git a/app/sums.py b/app/sums.py\n"
        "--- a/app/sums.py\n+++ b/app/sums.py\n@@ -1,2 +1,2 @@\n"
        f" def total(numbers: list[int]) -> int:\n-{old}\n+{new}\n"
    )


def verdict(service: Path, patches: Path, timeout_seconds: float = 60.0) -> mutants.Verdict:
    """Try the only mutant."""
    (only,) = mutants.try_all(service, mutants.load(patches), timeout_seconds)
    return only


def test_a_mutant_is_killed_by_the_test_that_fails(service: Path, patches: Path) -> None:
    """The verdict names the failing test."""
    write_patch(patches, "    return 0")
    killed = verdict(service, patches)
    assert (killed.outcome, killed.by) == (mutants.KILLED, "tests/test_sums.py::test_total_adds")


def test_a_mutant_that_no_test_notices_survives(service: Path, patches: Path) -> None:
    """Tests that pass in spite of the mistake let it live."""
    write_patch(patches, "    return 0", header="# tests: tests/test_nothing.py\n")
    assert verdict(service, patches).outcome == mutants.SURVIVED


def test_a_patch_of_other_code_no_longer_applies(service: Path, patches: Path) -> None:
    """A patch is never bent to fit, and git says why it does not."""
    write_patch(patches, "    return 0", old="    return sum( numbers)")
    stale = verdict(service, patches)
    assert stale.outcome == mutants.STALE
    assert "patch does not apply" in stale.output


def test_a_mutant_that_cannot_be_imported_is_broken(service: Path, patches: Path) -> None:
    """An import that fails is no failing test."""
    write_patch(patches, "    return (")
    assert verdict(service, patches).outcome == mutants.BROKEN


def test_a_mutant_that_breaks_a_fixture_is_broken(service: Path, patches: Path) -> None:
    """A test that was never begun has not failed, though pytest exits as if it had."""
    (service / "tests" / "conftest.py").write_text(
        "import pytest\nfrom app.sums import total\n\n\n"
        "@pytest.fixture(autouse=True)\ndef three() -> None:\n    assert total([3]) == 3\n"
    )
    write_patch(patches, "    return 0")
    assert verdict(service, patches).outcome == mutants.BROKEN


@pytest.mark.parametrize(
    ("header", "outcome"),
    [("", mutants.BROKEN), ("# may hang\n", mutants.KILLED)],
    ids=["unsaid", "said"],
)
def test_a_run_without_end_is_killed_only_where_the_patch_says_so(
    service: Path, patches: Path, header: str, outcome: str
) -> None:
    """Time alone proves nothing, unless the mistake is known to never come back."""
    write_patch(patches, "    while True: pass", header=f"# tests: tests/test_sums.py\n{header}")
    hung = verdict(service, patches, timeout_seconds=2.0)
    assert (hung.outcome, hung.by) == (outcome, "hang")


def test_nothing_is_tried_when_the_tests_fail_by_themselves(service: Path, patches: Path) -> None:
    """A test that fails anyway would seem to kill every mutant."""
    (service / "tests" / "test_nothing.py").write_text("def test_red() -> None:\n    assert 0\n")
    write_patch(patches, "    return 0", header="# tests: tests/test_sums.py tests\n")
    with pytest.raises(mutants.Refused, match="do not pass without a mutant"):
        verdict(service, patches)


def test_the_work_tree_stays_as_it_was(service: Path, patches: Path) -> None:
    """Mutants live in copies, and so does all that their tests leave behind."""
    (service / "tests" / "test_nothing.py").write_text(
        "from pathlib import Path\n\n\ndef test_nothing() -> None:\n    Path('left').touch()\n"
    )
    write_patch(patches, "    return 0", header="# tests: tests/test_nothing.py\n")
    verdict(service, patches)
    files = {path for path in service.rglob("*") if path.is_file()}
    assert files == {service / name for name in SERVICE}
    assert (service / "app/sums.py").read_text() == SERVICE["app/sums.py"]


def test_a_copy_leaves_out_what_git_ignores(service: Path, tmp_path: Path) -> None:
    """A database or a cache of the work tree is not part of the service."""
    (service / "data").mkdir()
    (service / "data" / "app.db").write_text("rows")
    mutants.copy(service, tmp_path / "copy")
    assert not (tmp_path / "copy" / "data").exists()


def test_a_copy_leaves_out_what_was_deleted(service: Path, tmp_path: Path) -> None:
    """A file that git tracks and the work tree no longer has is no part of it."""
    mutants.git(service, "add", ".")
    (service / "tests" / "test_nothing.py").unlink()
    mutants.copy(service, tmp_path / "copy")
    assert (tmp_path / "copy" / "tests" / "test_sums.py").exists()
    assert not (tmp_path / "copy" / "tests" / "test_nothing.py").exists()


def test_a_copy_is_of_the_service_whatever_git_hook_asks(
    service: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside a hook, git's variables point at the repository of the hook."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    mutants.copy(service, tmp_path / "copy")
    assert (tmp_path / "copy" / "app" / "sums.py").exists()


def test_a_run_leaves_no_bytecode(service: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutant must never be run from the bytecode of its original."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    assert mutants.run_tests(service, ["tests"], 60.0).exit_code == 0
    assert not list(service.rglob("__pycache__"))


def test_a_patch_applies_inside_another_repository(service: Path, patches: Path) -> None:
    """Git would skip a folder of the repository it is in, and report success."""
    write_patch(patches, "    return 0")
    assert mutants.apply(patches / "mutant.patch", service) == ""
    assert "return 0" in (service / "app/sums.py").read_text()


def test_only_the_named_mutants_are_tried(patches: Path) -> None:
    """Names are those of the files, without .patch."""
    write_patch(patches, "    return 0", name="zero")
    write_patch(patches, "    return 1", name="one")
    assert [mutant.name for mutant in mutants.load(patches, ["zero"])] == ["zero"]


def test_an_unknown_name_is_refused(patches: Path) -> None:
    """The message says which mutants there are."""
    write_patch(patches, "    return 0", name="zero")
    with pytest.raises(mutants.Refused, match="no such mutant: two; there are: zero"):
        mutants.load(patches, ["two"])


@pytest.mark.parametrize("header", ["", "# tests:\n", "# tests: -k total\n", "# test: tests\n"])
def test_a_patch_must_say_which_tests_notice_it(patches: Path, header: str) -> None:
    """Paths only: the tests of all mutants run together once, without a mistake."""
    write_patch(patches, "    return 0", header=header)
    with pytest.raises(mutants.Refused, match=r"^mutant\.patch: "):
        mutants.load(patches)


def test_a_patch_must_not_say_what_nobody_reads(patches: Path) -> None:
    """A misspelt header line would silently mean nothing."""
    write_patch(patches, "    return 0", header="# tests: tests\n# may  hang\n")
    with pytest.raises(mutants.Refused, match="neither 'tests:"):
        mutants.load(patches)


def test_the_count_of_outcomes_comes_last(
    service: Path, patches: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line at the end says whether all is well."""
    write_patch(patches, "    return 0", name="zero")
    write_patch(patches, "    return sum(numbers) ", name="same")
    mutants.try_all(service, mutants.load(patches))
    assert capsys.readouterr().out.splitlines()[-1] == (
        "2 mutants: 1 killed, 1 survived, 0 no longer apply, 0 broken"
    )


@pytest.mark.parametrize(
    ("new", "exit_code"), [("    return 0", 0), ("    return sum(numbers) ", 1)]
)
def test_the_exit_code_says_whether_all_were_killed(
    service: Path, patches: Path, monkeypatch: pytest.MonkeyPatch, new: str, exit_code: int
) -> None:
    """One survivor is a failure."""
    monkeypatch.setattr(mutants, "SERVICE", service)
    monkeypatch.setattr(mutants, "PATCHES", patches)
    write_patch(patches, new)
    assert mutants.main([]) == exit_code
