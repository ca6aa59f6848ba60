"""Tables, on a terminal of a given width, and elsewhere."""

from contextlib import redirect_stdout
from io import StringIO

import pytest

from app.cron.terminal import Row, show_table


class Terminal(StringIO):
    """What shows colours, and has a width."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever who runs the tests wants of their own terminal."""
    monkeypatch.delenv("NO_COLOR", raising=False)


def shown(row: Row) -> str:
    """The line of a row, on a terminal."""
    with redirect_stdout(Terminal()) as output:
        show_table([row])
    return output.getvalue().splitlines()[1]


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (32, f"{'j' * 10}  {'n' * 20}"),
        (31, f"{'j' * 10}  {'n' * 18}…"),
        (28, f"{'j' * 10}  {'n' * 15}…"),
        (27, "j" * 10),
        (5, "j" * 10),
    ],
)
def test_a_note_is_cut_to_what_fits_and_then_left_out(
    monkeypatch: pytest.MonkeyPatch, columns: int, line: str
) -> None:
    """By no letter more than it must, and to no less than 16."""
    monkeypatch.setenv("COLUMNS", f"{columns}")
    assert shown({"JOB": "j" * 10, "NOTE": "n" * 20}) == line


@pytest.mark.parametrize(
    ("outcome", "colour"),
    [("ok", 32), ("error", 31), ("timeout", 31), ("missed", 33), ("interrupted", 33)],
)
def test_an_outcome_has_its_colour(outcome: str, colour: int) -> None:
    """Green, red and, for what is neither good nor bad, yellow."""
    assert shown({"OUTCOME": outcome}) == f"\x1b[{colour}m{outcome}\x1b[0m"


def test_heads_are_bold() -> None:
    """On a terminal."""
    with redirect_stdout(Terminal()) as output:
        show_table([{"JOB": "tick"}])
    assert output.getvalue() == "\x1b[1mJOB\x1b[0m\ntick\n"


def test_elsewhere_nothing_is_cut_or_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file has no width."""
    monkeypatch.setenv("COLUMNS", "20")
    with redirect_stdout(StringIO()) as output:
        show_table([{"JOB": "tick", "RUNS": 7, "NOTE": "n" * 40}])
    assert output.getvalue() == f"JOB   RUNS  NOTE\ntick     7  {'n' * 40}\n"
