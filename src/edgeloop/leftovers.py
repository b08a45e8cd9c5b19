"""What a killed process left behind: a living one holds a lock on its temporary folder, so the next one to come removes
the folders that nobody holds. Python 3.9 syntax, the standard library.

Source: https://man7.org/linux/man-pages/man2/flock.2.html
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from typing import IO

from edgeloop.disk_errors import writing

TMPDIR = "TMPDIR"  # where programs keep temporary files
PREFIX = "edgeloop-tmp-"
OWN = re.compile(re.escape(PREFIX) + r"[a-z0-9_]{8}")
OLD_S = 60.0  # a folder that is younger may be about to be locked


@contextlib.contextmanager
def temporary_folder(parent: str | None = None) -> Iterator[str]:
    """A new folder in `parent` (None: where temporary files go), removed when the block ends; with it go those of
    processes that were killed.

    Raises:
        WriteError: None can be made there.
    """
    import tempfile  # with hashlib and OpenSSL, which a device has no memory for

    with writing(parent or "a temporary folder", "set TMPDIR to another folder"):
        parent = parent or tempfile.gettempdir()
        remove_leftovers(parent, OWN)
        folder = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
    try:
        with held(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def lasting_temporary_folder() -> Iterator[None]:
    """What the block starts lives on after this command, as a browser does: its temporary files go elsewhere."""
    own = os.environ.get(TMPDIR, "")
    if OWN.fullmatch(os.path.basename(own)) is None:
        yield
        return
    os.environ[TMPDIR] = os.path.dirname(own)
    try:
        yield
    finally:
        os.environ[TMPDIR] = own


@contextlib.contextmanager
def held(folder: str | os.PathLike[str]) -> Iterator[bool]:
    """Hold a folder's lock while the block runs; whether it is held: false where another process does, or where the
    file system has no such locks."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def remove_leftovers(parent: str, name: re.Pattern[str]) -> None:
    """Remove this user's folders in `parent` with such names that no process holds. What refuses stays."""
    try:
        found = [entry for entry in os.listdir(parent) if name.fullmatch(entry)]
    except OSError:
        return
    for entry in found:
        folder = os.path.join(parent, entry)
        with contextlib.suppress(OSError), held(folder) as ours:  # it may be gone, or another user's
            status = os.stat(folder)
            if ours and status.st_uid == os.getuid() and time.time() - status.st_mtime > OLD_S:
                shutil.rmtree(folder, ignore_errors=True)


def log_file() -> IO[bytes]:
    """A file without a name, for a program's words: memory where the system has such files, for a full disk takes not
    even an empty one."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("log"), "w+b")
    import tempfile

    return tempfile.TemporaryFile()
