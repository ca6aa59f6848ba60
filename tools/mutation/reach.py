"""Which tests can notice a mutant, the most promising first."""

import ast
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

from tools.mutation.mutant import Mutant

# So many are tried before all others, and as many of the near and of those on Postgres: most
# mutants are killed by them.
FIRST = 8

# Up to 3.11, Python does not show what a coroutine does when what it has waited for has failed.
SEES_ALL = sys.version_info >= (3, 12)

# Tests of processes, whose lines nobody sees: for what no other test runs, and for `python -m`.
PROCESSES = "_processes.py::"
DOOR = "__main__.py"

# What a test may want word by word.
TEXT = re.compile(r'"([^"{}%]{4,})"')


@dataclass
class Reach:
    """What each test takes and runs, and what it has killed so far."""

    sources: Mapping[str, str]
    texts: Mapping[str, str]
    """The files with tests."""
    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    kills: Counter[tuple[object, str]] = field(default_factory=Counter)

    def learn(self, survey: Mapping[str, Any]) -> None:
        """Take what a worker has measured."""
        tests = list(survey["seconds"])
        self.seconds |= survey["seconds"]
        for file, lines in survey["lines"].items():
            for line, numbers in lines.items():
                self.lines[file, int(line)] |= {tests[number] for number in numbers}

    def killed(self, mutant: Mutant, test: str) -> None:
        """Remember it: others of the function, or the same elsewhere, are killed by it, too."""
        self.kills[mutant.key[2], test] += 1
        self.kills[f"{mutant.file} {mutant.function}", test] += 1
        self.kills[mutant.file, test] += 1

    def rounds(self, mutant: Mutant, seconds: float) -> Iterator[list[str]]:
        """Yield the tests that reach it, as many as take so long, the first few by themselves."""
        near, speaking = self._near(mutant), self._speaking(mutant)
        tests = sorted(self.tests(mutant), key=lambda test: self._rank(mutant, test, speaking))
        close = [test for test in tests if test in near]
        on_postgres = [test for test in tests if "postgres" in test]
        first = list(dict.fromkeys([*close[:FIRST], *tests[:FIRST], *on_postgres[:FIRST]]))
        yield first
        spent = sum(self.seconds[test] for test in first)

        def affordable(test: str) -> bool:
            nonlocal spent
            spent += self.seconds[test]
            return spent <= seconds

        rest = [test for test in dict.fromkeys([*close, *tests]) if test not in first]
        yield list(takewhile(affordable, rest))

    def tests(self, mutant: Mutant) -> set[str]:
        """Return the tests that run its lines or, outside of functions, those of who uses it."""
        if mutant.names:
            places = self._uses(mutant, self.sources)
            found = self._running(places) or self._running(
                place for place in self.lines if place[0] == mutant.file
            )
            found |= self._reading(mutant)
        else:
            found = self._running((mutant.file, line) for line in mutant.lines)
            if not found or not SEES_ALL:
                found |= self._before(mutant)
        if not found or mutant.file.endswith(DOOR):
            return found | self._processes
        return found - self._processes

    def _before(self, mutant: Mutant) -> set[str]:
        """Return the tests that run the last thing before it in its function.

        Where they may have gone on from any of it, and nobody has seen that, those of all of it.
        """
        lines = reversed(range(mutant.head + 1, mutant.lines.start))
        places = [(mutant.file, line) for line in lines if (mutant.file, line) in self.lines]
        return self._running(places[:1] if SEES_ALL else places)

    def _near(self, mutant: Mutant) -> set[str]:
        """Return the tests that do what few do of its statement, or use it in its own file."""
        if mutant.file.endswith(DOOR):
            return self._processes
        if mutant.names:
            return self._running(self._uses(mutant, [mutant.file]))
        places = [(mutant.file, line) for line in mutant.whole]
        return min(
            (self.lines[each] for each in places if each in self.lines), key=len, default=set()
        )

    @property
    def _processes(self) -> set[str]:
        return {test for test in self.seconds if PROCESSES in test}

    def _running(self, places: Iterable[tuple[str, int]]) -> set[str]:
        return set().union(*(self.lines[place] for place in places if place in self.lines))

    def _uses(self, mutant: Mutant, files: Iterable[str]) -> Iterator[tuple[str, int]]:
        """Yield the lines that have its names, but for those that give them."""
        word = re.compile(rf"\b({'|'.join(mutant.names)})\b")
        for file in files:
            for number, line in enumerate(self.sources[file].splitlines(), start=1):
                if word.search(line) and (file != mutant.file or number not in mutant.whole):
                    yield file, number

    def _reading(self, mutant: Mutant) -> set[str]:
        """Return the tests whose files may read its names: that runs no line of the app."""
        files = {file for file, names in self._read.items() if names & mutant.names}
        return {test for test in self.seconds if test.split("::")[0] in files}

    @cached_property
    def _read(self) -> dict[str, set[str]]:
        """What each file with tests imports by name, or reads of something."""
        read = defaultdict[str, set[str]](set)
        for file, text in self.texts.items():
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ImportFrom):
                    read[file] |= {alias.name for alias in node.names}
                elif isinstance(node, ast.Attribute):
                    read[file].add(node.attr)
        return read

    def _speaking(self, mutant: Mutant) -> set[str]:
        """Return the files with tests that have a text of its lines."""
        lines = [line for line in mutant.key[2] if line.startswith("- ")]
        texts = TEXT.findall(" ".join(lines))
        return {file for file in self.texts if any(text in self.texts[file] for text in texts)}

    def _rank(self, mutant: Mutant, test: str, speaking: set[str]) -> tuple[object, ...]:
        own = Path(test.split("::")[0]).stem == f"test_{Path(mutant.file).stem}"
        return (
            -self.kills[mutant.key[2], test],
            test.split("::")[0] not in speaking,
            -self.kills[f"{mutant.file} {mutant.function}", test],
            -self.kills[mutant.file, test],
            "postgres" in test,
            not own,
            self.seconds[test],
            test,
        )
