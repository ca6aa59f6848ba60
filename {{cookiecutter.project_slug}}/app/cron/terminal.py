"""Tables on standard output: aligned, on a terminal in colours and no wider than it is."""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence

Row = Mapping[str, str | int]
"""What stands in each column, by the column's head."""

BOLD, RED, GREEN, YELLOW = 1, 31, 32, 33
COLOURS = {"ok": GREEN, "error": RED, "timeout": RED}

# Where a terminal is too narrow, these columns are cut to so many letters, and then left out.
CUT, CUT_MIN = ("NOTE", "SCHEDULE"), 16
LEFT_OUT = ("UTC", "PROCESS", "NOTE", "SCHEDULE")

GAP = "  "


def show_table(rows: Sequence[Row]) -> None:
    """Print the rows under their heads. Numbers stand at the right, an empty column nowhere."""
    if not rows:
        return
    widths = {
        head: max(len(head), *(len(str(row[head])) for row in rows))
        for head in rows[0]
        if any(row[head] != "" for row in rows)
    }
    if sys.stdout.isatty():
        _fit(widths, shutil.get_terminal_size().columns)
    right = {head for head in widths if any(isinstance(row[head], int) for row in rows)}
    for place, row in enumerate([{head: head for head in widths}, *rows]):
        line = []
        for head, width in widths.items():
            text = str(row[head])
            text = text if len(text) <= width else f"{text[: width - 1]}…"
            space = " " * (width - len(text))
            if place == 0:
                text = _paint(text, BOLD)
            elif head == "OUTCOME":
                text = coloured(text)
            line.append(space + text if head in right else text + space)
        print(GAP.join(line).rstrip())


def coloured(outcome: str) -> str:
    """The outcome of a run, in its colour."""
    return _paint(outcome, COLOURS.get(outcome, YELLOW))


def _fit(widths: dict[str, int], columns: int) -> None:
    over = sum(widths.values()) + len(GAP) * (len(widths) - 1) - columns
    for head in LEFT_OUT:
        could_be_cut = sum(max(0, widths.get(cut, 0) - CUT_MIN) for cut in CUT)
        if over > could_be_cut and head in widths:
            over -= widths.pop(head) + len(GAP)
    for head in CUT:
        if over > 0 and head in widths:
            narrower = max(min(widths[head], CUT_MIN), widths[head] - over)
            over -= widths[head] - narrower
            widths[head] = narrower


def _paint(text: str, colour: int) -> str:
    if not text or not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"
