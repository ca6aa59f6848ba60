"""Where a SQLite file must not lie: its locks do not hold on a network file system."""

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")

NETWORK = {
    *("afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.s3fs"),
    *("fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2"),
    *("smb3", "smbfs", "sshfs"),
}


def network_file_system(folder: Path) -> str | None:
    """The type of the network file system that the folder lies on; None for a local one.

    Linux tells it, in /proc. Elsewhere the answer is None.
    """
    try:
        lines = MOUNTS.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    kinds: dict[Path, str] = {}
    for line in lines:  # "server:/export /mnt/data nfs4 rw,relatime 0 0"; the last one counts
        _, mount_point, kind, *_ = line.split(" ")
        kinds[Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), mount_point))] = kind
    resolved = folder.resolve()
    kind = next((kinds[at] for at in (resolved, *resolved.parents) if at in kinds), "")
    return kind if kind in NETWORK else None
