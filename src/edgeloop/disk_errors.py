"""What the disk or the permissions refuse, in words: the path, the reason, what is free there, and what to do.

Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from edgeloop.errors import WriteError

# what a write fails with when it is the disk's fault; the second set also when it is the permissions'
DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO})
REFUSED = DISK | {errno.EACCES, errno.EPERM}
ELSEWHERE = "choose another folder"
_ADVICE = {
    errno.EROFS: "Make the file system writable, or {elsewhere}.",
    errno.ENOSPC: "Free some space there, or {elsewhere}.",
    errno.EDQUOT: "The quota is used up: free some space there, or {elsewhere}.",
    errno.EFBIG: "Raise the limit on the size of a file (ulimit -f), or {elsewhere}.",
    errno.EIO: "The disk may be failing (dmesg tells more): {elsewhere}.",
}
_PERMISSION = "Make it writable for the user {user}, or {elsewhere}."


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], elsewhere: str = ELSEWHERE) -> Iterator[None]:
    """Raises WriteError where the block raises an OSError: it writes `path`."""
    try:
        yield
    except OSError as e:
        raise write_error(path, e, elsewhere) from e


def write_error(path: str | os.PathLike[str], e: OSError, elsewhere: str = ELSEWHERE) -> WriteError:
    """`path` could not be written for this reason. `elsewhere`: the other way out, for the middle of a sentence."""
    advice = _ADVICE.get(e.errno or 0, _PERMISSION).format(elsewhere=elsewhere, user=_user())
    found = f"cannot write {os.fspath(path)}: {e.strerror or e}"
    if e.errno == errno.ENOSPC:
        free, names = _free(os.fspath(path))
        found = f"{found}, {free:,} bytes are free"
        if free and names == 0:
            found, advice = f"{found} and no inode is", f"Remove some files there, or {elsewhere}."
    return WriteError(found, advice=advice)


def _free(path: str) -> tuple[int, int | None]:
    """Bytes and inodes that are free for a user where `path` lies or would lie; None: this file system counts none."""
    while not os.path.isdir(path):
        path = os.path.dirname(os.path.abspath(path))
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None


def _user() -> str:
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        return str(os.getuid())
