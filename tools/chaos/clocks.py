"""A wall clock for processes that can be stepped while they run, by Debian's libfaketime."""

from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")

LIBRARIES = "usr/lib/*/faketime/libfaketimeMT.so.1"


class WallClock:
    """The real one, but for so many seconds, which stand in a file."""

    def __init__(self, file: Path) -> None:
        """Let it be right."""
        self.file = file
        self.seconds = 0.0
        self.set_to(0)

    def set_to(self, seconds: float) -> None:
        """Set it to so many seconds from the real one, for all that have it at the same moment."""
        self.seconds = seconds
        new = self.file.with_suffix(".new")
        new.write_text(f"{seconds:+g}")
        new.replace(self.file)

    @property
    def environment(self) -> dict[str, str]:
        """What a process must be started with. Its monotonic clock is the real one."""
        return {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Else it waits for moments of the wall clock, and spins until they come.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "NO_FAKE_STAT": "1",
        }

    def end(self) -> None:
        """Take away what killed processes have left in memory."""
        for path in SHARED_MEMORY.glob("*faketime_*_*"):
            if not Path(f"/proc/{path.name.rpartition('_')[2]}").exists():
                path.unlink(missing_ok=True)


def library() -> Path | None:
    """Return the library that does it, if it is here."""
    return next(Path("/").glob(LIBRARIES), None)


def lacks_library() -> str | None:
    """Say why no clock can be stepped here, if that is so."""
    return None if library() else "libfaketime is not installed (apt-get install libfaketime)"
