"""The mutants that no test can kill, each with the reason why it does no harm.

A paragraph of explained.txt begins with its reason. Then come the mutants that have it, as a
survivor is printed:

    # A deadline that is reached exactly has no test's attention, nor anybody else's.
    app/cron/absence.py Absence.wait
    - if noticed := self._clock.now() - planned > LATE:
    + if noticed := self._clock.now() - planned >= LATE:

Neither line numbers nor indentation matter. A change of the lines themselves asks anew.
"""

from pathlib import Path

from tools.mutation.mutant import Key

EXPLAINED = Path(__file__).with_suffix(".txt")


def read(path: Path) -> dict[Key, str]:
    """Read the explained mutants with their reasons. Raises ValueError for one without."""
    explained: dict[Key, str] = {}
    reason, place, changed = "", ("", ""), list[str]()

    def end() -> None:
        if changed:
            if not reason or not place[0]:
                raise ValueError(f"{path.name}: no reason, or no file, for {changed[0]!r}")
            explained[*place, tuple(changed)] = reason
            changed.clear()

    previous = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(("- ", "+ ")):
            changed.append(line)
        else:
            end()
            if line.startswith("#"):
                words = line.removeprefix("#").strip()
                reason = f"{reason} {words}" if previous.startswith("#") else words
            elif line:
                file, _, function = line.partition(" ")
                place = file, function
        previous = line
    end()
    return explained


def shown(key: Key) -> str:
    """Write a mutant as explained.txt names it."""
    return "\n".join([f"{key[0]} {key[1]}".rstrip(), *key[2]])
