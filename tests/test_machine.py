"""What a machine lacks: a skip with its reason, or in CI a failure."""

import pytest

from tests.machine import lacking


@pytest.mark.parametrize(
    ("ci", "in_ci_too", "outcome"),
    [
        ("", False, pytest.skip.Exception),
        ("true", False, pytest.fail.Exception),
        ("true", True, pytest.skip.Exception),
    ],
    ids=["elsewhere", "in CI", "not yet in CI"],
)
def test_what_is_missing_is_said_aloud(
    monkeypatch: pytest.MonkeyPatch, ci: str, in_ci_too: bool, outcome: type[BaseException]
) -> None:
    """What was not tried is named, and CI must try all that it can have."""
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no such thing here"):
        lacking("no such thing here", in_ci_too=in_ci_too)
