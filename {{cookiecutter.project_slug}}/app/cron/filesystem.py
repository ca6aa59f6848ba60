"""Where a SQLite file must not lie: its locks do not hold on a network file system."""

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")

# A line of it: "server:/export /mnt/data nfs4 rw,relatime 0 0". Blanks in names are escaped.
MOUNT = re.compile(r"^[^ \n]* ([^ \n]+) ([^ \n]+) ", re.MULTILINE)

# As the kernel calls them. Some are several names of one; what "fuse" alone is, nobody can tell.
NETWORK = {
    *("acfs", "afs", "auristorfs", "beegfs", "ceph", "cifs", "coda", "fhgfs", "fuse.ceph-fuse"),
    *("fuse.gcsfuse", "fuse.glusterfs", "fuse.juicefs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
    *("gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs"),
    *("pvfs2", "smb3", "smbfs"),
}


def network_file_system(folder: Path) -> str | None:
    """The type of the network file system that the folder lies on; None for a local one.

    Linux tells it, in /proc. Elsewhere the answer is None.
    """
    try:
        mounts = MOUNTS.read_text("utf-8", "surrogateescape")
    except OSError:
        return None
    kinds: dict[Path, str] = {}
    for mount_point, kind in MOUNT.findall(mounts):
        # Of two on the same folder, the later one hides the other.
        kinds[Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), mount_point))] = kind
    resolved = folder.resolve()
    kind = next((kinds[at] for at in (resolved, *resolved.parents) if at in kinds), "")
    return kind if kind in NETWORK else None
