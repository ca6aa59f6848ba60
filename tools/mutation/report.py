"""What has become of the mutants: a table with a line for each file, and the sum."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tools.mutation.mutant import Key, Mutant
from tools.mutation.trial import HUNG, KILLED, LEFT_OUT, SURVIVED

HEAD = ("mutants", KILLED, HUNG, SURVIVED, "explained", LEFT_OUT, "score")


@dataclass(frozen=True)
class Findings:
    """The outcome of each mutant; one that has none was left out."""

    outcomes: Mapping[Mutant, str]
    explained: Collection[Key]

    def having(self, outcome: str) -> list[Mutant]:
        """Return the mutants of which that has become."""
        return [mutant for mutant, became in self.outcomes.items() if became == outcome]

    @property
    def unexplained(self) -> list[Mutant]:
        """The survivors that need a test, or a reason."""
        return [each for each in self.having(SURVIVED) if each.key not in self.explained]

    @property
    def stale(self) -> list[Key]:
        """Explanations, of files that were tried, of which not every mutant survives."""
        files = {mutant.file for mutant in self.outcomes}
        killed = {mutant.key for outcome in (KILLED, HUNG) for mutant in self.having(outcome)}
        true = {mutant.key for mutant in self.having(SURVIVED)} - killed
        return [key for key in self.explained if key[0] in files and key not in true]

    def table(self, files: Sequence[str]) -> list[str]:
        """Make a line for each file, and the sum of all."""
        width = max(map(len, [*files, "all"]))
        lines = [" " * width + "".join(f"  {word:>9}" for word in HEAD)]
        for name, mine in [*((file, [file]) for file in files), ("all", files)]:
            numbers = self._numbers([mutant for mutant in self.outcomes if mutant.file in mine])
            lines.append(f"{name:<{width}}" + "".join(f"  {number:>9}" for number in numbers))
        return lines

    def _numbers(self, mutants: Sequence[Mutant]) -> list[int | str]:
        count = Counter(self.outcomes[mutant] for mutant in mutants)
        reasons = sum(
            self.outcomes[each] == SURVIVED and each.key in self.explained for each in mutants
        )
        dead, tried = count[KILLED] + count[HUNG], len(mutants) - count[LEFT_OUT]
        score = f"{100 * dead / tried:.1f} %" if tried else "-"
        survived = count[SURVIVED] - reasons
        return [len(mutants), count[KILLED], count[HUNG], survived, reasons, count[LEFT_OUT], score]
