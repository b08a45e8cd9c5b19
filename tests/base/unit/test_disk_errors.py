"""What a disk refuses is told with the path, what is free, and a way out that helps."""

import errno
import os
from types import SimpleNamespace

import pytest

from edgeloop import disk_errors
from edgeloop.disk_errors import write_error, writing
from edgeloop.errors import WriteError


@pytest.mark.parametrize(
    ("number", "blocks", "inodes", "found", "advice"),
    [
        (errno.ENOSPC, 3, 7, "No space left on device, 12,288 bytes are free", "Free some space there, or"),
        (errno.ENOSPC, 3, 0, "12,288 bytes are free and no inode is", "Remove some files there, or"),
        (errno.ENOSPC, 0, 0, "0 bytes are free", "Free some space there, or"),
        (errno.EDQUOT, 3, 7, "Disk quota exceeded", "The quota is used up"),
        (errno.EROFS, 3, 7, "Read-only file system", "Make the file system writable, or"),
        (errno.EACCES, 3, 7, "Permission denied", "Make it writable for the user"),
        (errno.EFBIG, 3, 7, "File too large", "ulimit -f"),
        (errno.EIO, 3, 7, "Input/output error", "dmesg"),
    ],
)
def test_the_advice_is_that_of_the_reason(monkeypatch, tmp_path, number, blocks, inodes, found, advice):
    disk = SimpleNamespace(f_bavail=blocks, f_frsize=4096, f_files=100, f_favail=inodes)
    monkeypatch.setattr(disk_errors.os, "statvfs", lambda path: disk)
    path = tmp_path / "not" / "there"
    error = write_error(path, OSError(number, os.strerror(number)), "choose another folder")
    assert error.found.startswith(f"cannot write {path}: ") and error.found.endswith(found)
    assert error.advice.startswith(advice) or advice in error.advice
    assert error.advice.endswith("choose another folder.")


def test_a_file_system_that_counts_no_inodes_has_some(monkeypatch, tmp_path):
    """As btrfs tells."""
    disk = SimpleNamespace(f_bavail=3, f_frsize=4096, f_files=0, f_favail=0)
    monkeypatch.setattr(disk_errors.os, "statvfs", lambda path: disk)
    assert "inode" not in write_error(tmp_path, OSError(errno.ENOSPC, "No space left on device")).found


def test_a_folder_where_a_file_is_in_the_way_is_a_write_error(tmp_path):
    (tmp_path / "f").touch()
    with pytest.raises(WriteError, match=r"cannot write .*f/g: Not a directory"), writing(tmp_path / "f" / "g"):
        (tmp_path / "f" / "g").mkdir()
