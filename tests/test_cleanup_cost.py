"""The measurement of what deleting much costs: its arithmetic, and that it measures.

Whether the promises are kept is not asked here: on a machine that is busy with other tests, times
say nothing.
"""

from pathlib import Path

import pytest

from tools import cleanup_cost
from tools.cleanup_cost import BIG, CHUNKS, OTHER, ROWS, SAME, Key, Measurement


def one(seconds: float, wait: float = 0.0, errors: int = 0) -> Measurement:
    """Make a measurement."""
    return Measurement(seconds, wait, errors, log_bytes=4_000_000)


def measured(**changed: list[Measurement]) -> dict[Key, list[Measurement]]:
    """Make the measurements of one round in which each promise is just kept, but for these."""
    each = {"big": [one(1, 1)], "rows": [one(24)], "chunks": [one(3, 0.2)]} | changed
    return {
        (place, way): each[name]
        for place in (SAME, OTHER)
        for way, name in ((BIG, "big"), (ROWS, "rows"), (CHUNKS, "chunks"))
    }


def broken(measurements: dict[Key, list[Measurement]]) -> list[str]:
    """Return the lines about promises that are broken."""
    return [line for kept, line in cleanup_cost.judge(measurements) if not kept]


def test_each_promise_is_made_for_both_places() -> None:
    """Four for an app in the same process, four for one in another."""
    promises = cleanup_cost.judge(measured())
    assert [kept for kept, _ in promises] == [True] * 8
    assert [SAME in line for _, line in promises] == [True] * 4 + [False] * 4
    assert [OTHER in line for _, line in promises] == [False] * 4 + [True] * 4


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"chunks": [one(3.01, 0.2)], "rows": [one(99)]}, "3.01 x the time of one DELETE"),
        ({"chunks": [one(3, 0.21)]}, "0.21 x the longest wait"),
        ({"rows": [one(23.9)]}, "7.97 x faster than row by row"),
        ({"chunks": [one(3, 0.2, errors=1)]}, "failed writes: 1 "),
    ],
)
def test_a_promise_that_is_not_kept_is_told(
    changed: dict[str, list[Measurement]], line: str
) -> None:
    """In a line that says by how much, for each place."""
    lines = broken(measured(**changed))
    assert len(lines) == 2
    assert all(each.startswith("BROKEN") and line in each for each in lines)


def test_times_are_compared_in_the_middle_of_the_rounds() -> None:
    """One round may have been disturbed."""
    chunks = [one(1, 0.2), one(99, 0.2), one(2, 0.2)]
    assert cleanup_cost.seconds(chunks) == 2
    assert broken(measured(chunks=chunks)) == []


def test_the_longest_wait_counts() -> None:
    """Of all rounds, whichever way the rows are deleted."""
    chunks = [one(1, 0.1), one(1, 0.4), one(1, 0.1)]
    assert cleanup_cost.longest_wait(chunks) == 0.4
    assert len(broken(measured(chunks=chunks))) == 2
    assert broken(measured(chunks=chunks, big=[one(1, 2), one(1, 0.1)])) == []


def test_failed_writes_of_other_ways_break_no_promise() -> None:
    """That they fail is why nobody should delete in such a way."""
    assert broken(measured(big=[one(1, 1, errors=7)])) == []


def test_it_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each way deletes what has expired, in both places, and has a line in the table."""
    exit_code = cleanup_cost.main(["--rows", "2000", "--rounds", "1", "--folder", str(tmp_path)])
    output = capsys.readouterr().out
    lines = output.splitlines()
    for place in (SAME, OTHER):
        for way in (BIG, ROWS, CHUNKS):
            assert any(line.startswith(place) and way in line for line in lines)
    assert "200 of 2,000 sessions" in lines[0]
    assert exit_code == ("BROKEN" in output)
    assert list(tmp_path.iterdir()) == []
