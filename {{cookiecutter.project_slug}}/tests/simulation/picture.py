"""The timeline of a seed as a picture: who was there, what ran when, what went wrong."""

from collections.abc import Iterable, Mapping
from html import escape

from .history import Body, Effect, Fault, JobChanged, Killed, Record, RunChanged, Started, Stopped
from .ledger import Violation

COLOURS = {
    "ok": "#3a9d5d",
    "error": "#d9822b",
    "timeout": "#b8860b",
    "interrupted": "#5b8def",
    "abandoned": "#888888",
    "missed": "#b39ddb",
    None: "#444444",
}

WIDTH, LEFT, ROW = 1400, 190, 26

# What can be seen of a run, however short it is.
WIDTH_MIN = 2.0


class Picture:
    """Draws what has happened between two moments, in microseconds."""

    def __init__(self, history: Iterable[Record], since: int, until: int) -> None:
        self._history = list(history)
        self._since, self._until = since, until
        self._parts: list[str] = []
        self._rows: dict[str, int] = {}

    def draw(self, title: str, violations: Iterable[Violation]) -> str:
        """The picture, as SVG."""
        lives = self._lives()
        names = {item.name for item in self._history if isinstance(item, Body)}
        for row in [*lives, *sorted(names)]:
            self._rows[row] = 70 + ROW * len(self._rows)
        height = 110 + ROW * len(self._rows)
        for name, (start, end) in lives.items():
            self._bar(name, (start, end), "#c9d6e8", name, 1)
        self._runs()
        self._moments(height)
        for violation in violations:
            self._line(violation, height)
        labels = [
            f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(row)}</text>'
            for row, y in self._rows.items()
        ]
        ticks = [
            f'<text x="{self._x(at):.1f}" y="{height - 12}" text-anchor="middle">'
            f"{at / 1_000_000:,.1f} s</text>"
            for at in (self._since + (self._until - self._since) * n // 6 for n in range(7))
        ]
        legend = "".join(
            f'<tspan fill="{colour}" dx="12">&#9632; {outcome or "unfinished"}</tspan>'
            for outcome, colour in COLOURS.items()
        )
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
            f'<text x="12" y="22" font-size="15">{escape(title)}</text>'
            f'<text x="0" y="44">{legend}</text>'
        )
        return "\n".join([head, *labels, *ticks, *self._parts, "</svg>"])

    def _x(self, at: int) -> float:
        share = (at - self._since) / max(1, self._until - self._since)
        return LEFT + (WIDTH - LEFT - 40) * min(1.0, max(0.0, share))

    def _seen(self, start: int, end: int) -> bool:
        return start <= self._until and end >= self._since

    def _bar(self, row: str, span: tuple[int, int], colour: str, hint: str, lane: int) -> None:
        """In the upper or the lower half of a row: what overlaps is seen beside each other."""
        start, end = span
        if row not in self._rows or not self._seen(start, end):
            return
        x, y = self._x(start), self._rows[row] + 3 + 9 * lane
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y}" width="{max(WIDTH_MIN, self._x(end) - x):.1f}" height="9" '
            f'rx="2" fill="{colour}" fill-opacity="0.85"><title>{escape(hint)}</title></rect>'
        )

    def _mark(self, row: str, at: int, text: str, colour: str) -> None:
        if self._seen(at, at) and row in self._rows:
            y = self._rows[row] + 12
            self._parts.append(
                f'<circle cx="{self._x(at):.1f}" cy="{y}" r="4" fill="{colour}"/>'
                f'<text x="{self._x(at) + 6:.1f}" y="{y + 4}" font-size="10">{escape(text)}</text>'
            )

    def _lives(self) -> Mapping[str, tuple[int, int]]:
        lives: dict[str, tuple[int, int]] = {}
        for record in self._history:
            if isinstance(record, Started):
                lives[record.process] = record.at, self._until
            elif isinstance(record, Killed | Stopped):
                lives[record.process] = lives[record.process][0], record.at
        return {name: life for name, life in lives.items() if self._seen(*life)}

    def _runs(self) -> None:
        """A bar from the begin of a body to its end, in the row of its job."""
        outcomes = {
            (item.name, item.run_no): item.new
            for item in self._history
            if isinstance(item, RunChanged)
        }
        begun: dict[tuple[str, int, str], int] = {}
        for item in self._history:
            if isinstance(item, Body) and item.what == "begun":
                begun[item.name, item.run_no, item.process] = item.at
            elif isinstance(item, Body) and item.what == "ended":
                self._run((item.name, item.run_no, item.process), begun, item.at, outcomes)
            elif isinstance(item, Killed | Stopped):
                for key in [key for key in begun if key[2] == item.process]:
                    self._run(key, begun, item.at, outcomes)
        for key in list(begun):
            self._run(key, begun, self._until, outcomes)

    def _run(
        self,
        key: tuple[str, int, str],
        begun: dict[tuple[str, int, str], int],
        end: int,
        outcomes: Mapping[tuple[str, int], str | None],
    ) -> None:
        name, run_no, process = key
        outcome = outcomes.get((name, run_no))
        start = begun.pop(key)
        hint = f"run {run_no} on {process}: {outcome}"
        self._bar(name, (start, end), COLOURS[outcome], hint, run_no % 2)
        if self._seen(start, start):
            y = self._rows[name] + 11 + 9 * (run_no % 2)
            text = f"{run_no} {process}"
            self._parts.append(
                f'<text x="{self._x(start):.1f}" y="{y}" font-size="9">{text}</text>'
            )

    def _moments(self, height: int) -> None:
        for item in self._history:
            if isinstance(item, Fault):
                rows = (
                    [item.process]
                    if item.process
                    else [row for row in self._rows if row[0] == "p" and row[1:].isdigit()]
                )
                for row in rows:
                    self._bar(row, (item.at, item.until), "#e8a0a0", item.kind, 0)
                self._mark(rows[0] if rows else "", item.at, item.kind, "#b03030")
            elif isinstance(item, Effect):
                self._mark(item.name, item.at, "", "#1b4f9c")
            elif isinstance(item, JobChanged) and item.by == "operator" and item.new:
                self._mark(item.new.name, item.at, "operator", "#7a3fa0")

    def _line(self, violation: Violation, height: int) -> None:
        x = self._x(violation.at)
        self._parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="50" y2="{height - 28}" stroke="#e00000" '
            f'stroke-width="2"/><text x="{x - 6:.1f}" y="62" text-anchor="end" fill="#e00000">'
            f"{escape(violation.rule)}: {escape(violation.name)}</text>"
        )


def picture(history: list[Record], violation: Violation, title: str, around: int) -> str:
    """The time around a violation, and only the jobs and processes that were there."""
    since, until = max(0, violation.at - around), violation.at + around // 3
    return Picture(history, since, until).draw(title, [violation])
