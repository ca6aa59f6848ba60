"""The file system: told by its type, from a list of mounts that the test has written."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from app.cron import filesystem
from app.cron.database import DatabaseError
from app.cron.filesystem import network_file_system
from app.cron.sqlite import SqliteDatabase

Mount = Callable[..., None]


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mount:
    """Make this the list of what is mounted: "FOLDER TYPE", each in a line of its own."""
    path = tmp_path / "mounts"
    monkeypatch.setattr(filesystem, "MOUNTS", path)

    def mount(*lines: str) -> None:
        path.write_text("".join(f"source {line} rw,relatime 0 0\n" for line in lines), "utf-8")

    return mount


KINDS = (
    "acfs afs auristorfs beegfs ceph cifs coda fhgfs fuse.ceph-fuse fuse.gcsfuse fuse.glusterfs "
    "fuse.juicefs fuse.rclone fuse.s3fs fuse.sshfs gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 "
    "orangefs pvfs2 smb3 smbfs"
)


@pytest.mark.parametrize("kind", KINDS.split())
def test_a_network_file_system_is_told_by_its_type(mounts: Mount, kind: str) -> None:
    """As the kernel calls it."""
    mounts("/ ext4", f"/mnt/data {kind}")
    assert network_file_system(Path("/mnt/data")) == kind


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "fuseblk"])
def test_a_local_file_system_is_none(mounts: Mount, kind: str) -> None:
    """Nor is any that is not known."""
    mounts("/ ext4", f"/mnt/data {kind}")
    assert network_file_system(Path("/mnt/data")) is None


def test_the_list_is_the_one_of_this_process() -> None:
    """A container has mounts of its own."""
    assert Path("/proc/self/mounts") == filesystem.MOUNTS


def test_a_name_need_not_be_text(mounts: Mount, tmp_path: Path) -> None:
    """One byte that is no UTF-8, anywhere in the list, says nothing of the others."""
    mounts("/ ext4", "/mnt/data nfs4")
    with (tmp_path / "mounts").open("ab") as file:
        file.write(b"source /mnt/\xff ext4 rw 0 0\n")
    assert network_file_system(Path("/mnt/data")) == "nfs4"


def test_a_folder_lies_where_its_parents_lie(mounts: Mount) -> None:
    """However deep, and whether it is there or not."""
    mounts("/ ext4", "/mnt/data nfs4")
    assert network_file_system(Path("/mnt/data/one/two")) == "nfs4"


def test_the_nearest_mount_counts(mounts: Mount) -> None:
    """A disk inside of a network, and a network inside of a disk."""
    mounts("/ nfs4", "/disk ext4", "/disk/share cifs", "/disk/share/own xfs")
    assert network_file_system(Path("/home")) == "nfs4"
    assert network_file_system(Path("/disk/data")) is None
    assert network_file_system(Path("/disk/share/data")) == "cifs"
    assert network_file_system(Path("/disk/share/own/data")) is None


def test_the_nearest_mount_counts_in_any_order(mounts: Mount) -> None:
    """What is mounted first need not be the outer one."""
    mounts("/mnt/data/own ext4", "/mnt/data nfs4", "/ ext4")
    assert network_file_system(Path("/mnt/data/own")) is None
    assert network_file_system(Path("/mnt/data")) == "nfs4"


def test_the_last_of_two_mounts_on_a_folder_counts(mounts: Mount) -> None:
    """It hides the other, as NFS does the automounter that waits for it."""
    mounts("/ ext4", "/mnt/data autofs", "/mnt/data nfs4")
    assert network_file_system(Path("/mnt/data")) == "nfs4"
    mounts("/ ext4", "/mnt/data nfs4", "/mnt/data ext4")
    assert network_file_system(Path("/mnt/data")) is None


def test_a_similar_name_is_another_folder(mounts: Mount) -> None:
    """`/mnt/database` does not lie in `/mnt/data`."""
    mounts("/ ext4", "/mnt/data nfs4")
    assert network_file_system(Path("/mnt/database")) is None


@pytest.mark.parametrize(
    ("escaped", "name"),
    [
        (r"/mnt/our\040data", "/mnt/our data"),
        (r"/mnt/a\011b", "/mnt/a\tb"),
        (r"/mnt/a\012b", "/mnt/a\nb"),
        (r"/mnt/back\134slash", r"/mnt/back\slash"),
        (r"/mnt/back\134040slash", r"/mnt/back\040slash"),
        ("/mnt/a\x0cb", "/mnt/a\x0cb"),
        ("/mnt/a\u2028b", "/mnt/a\u2028b"),
        ("/mnt/señal", "/mnt/señal"),
    ],
)
def test_a_mount_may_have_any_name(mounts: Mount, escaped: str, name: str) -> None:
    """Blanks are escaped, as the kernel does; letters that end a line for Python are not."""
    mounts("/ ext4", f"{escaped} nfs4", "/mnt ext4")
    assert network_file_system(Path(name) / "data") == "nfs4"


def test_a_link_lies_where_it_leads_to(mounts: Mount, tmp_path: Path) -> None:
    """Not where its name is."""
    (tmp_path / "share").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "share")
    mounts("/ ext4", f"{tmp_path}/share nfs4")
    assert network_file_system(tmp_path / "link") == "nfs4"


def test_nothing_is_known_of_what_no_list_has(mounts: Mount) -> None:
    """As in a sandbox that shows no mounts."""
    mounts()
    assert network_file_system(Path("/mnt/data")) is None


def test_nothing_is_known_where_no_list_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only Linux has one: elsewhere each file system passes."""
    monkeypatch.setattr(filesystem, "MOUNTS", tmp_path / "nothing")
    assert network_file_system(tmp_path) is None


def test_the_list_of_this_machine_can_be_read(tmp_path: Path) -> None:
    """Whatever is mounted here, where tests write is no network."""
    assert network_file_system(tmp_path) is None


def test_a_database_on_a_network_file_system_is_refused(mounts: Mount, tmp_path: Path) -> None:
    """In one line: the file, the type and what to do. No file is made."""
    mounts("/ ext4", f"{tmp_path}/data nfs4")
    path = tmp_path / "data" / "app.db"
    with closing(SqliteDatabase(path)) as database, pytest.raises(DatabaseError) as error:
        database.check()
    assert str(error.value) == (
        f"{path}: it lies on nfs4, a network file system, where SQLite's locks do not hold between "
        "machines; DATABASE_URL must name a file on a local disk"
    )
    assert not path.exists()
