"""A small disk that can be filled. One must be root."""

import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

KILOBYTES = 8_000


class Disk:
    """A disk in memory, at `folder`, which it makes."""

    def __init__(self, folder: Path) -> None:
        """Mount it."""
        self.folder = folder
        self._ballast = folder / "ballast"
        folder.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={KILOBYTES}k"]
        subprocess.run(["mount", *options, "tmpfs", folder], check=True)

    def fill(self) -> None:
        """Leave no room."""
        with self._ballast.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)

    def free(self) -> None:
        """Make room again."""
        self._ballast.unlink()

    def end(self) -> None:
        """Take it away, also from who still uses it."""
        subprocess.run(["umount", "--lazy", self.folder], check=True)


@cache
def lacks_disk() -> str | None:
    """Say why there can be no such disk here, if that is so."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            Disk(Path(folder) / "disk").end()
        except (OSError, subprocess.CalledProcessError) as error:
            return f"no disk can be mounted here: {error}"
    return None
