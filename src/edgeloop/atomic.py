"""Write a file or a folder so that a killed process leaves the old one or the new one, whole."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgeloop.errors import WriteError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
# what a caller's own writes into a new folder fail with when it is the disk's fault
DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO})


def write_file(path: str | Path, data: bytes) -> None:
    """Replace `path` by `data`: a temporary sibling, fsync, rename.

    Raises:
        WriteError: The disk or the permissions refuse.
    """
    path = Path(path)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)  # mkstemp makes 0600; a bundle is there to be read
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A temporary sibling to fill; it takes the place of `path` when the block ends well.

    An existing folder is exchanged in one step (Linux `renameat2`), then removed. When the block
    raises, the sibling is removed, with the parents that were made for it, and `path` is as it was.

    Raises:
        WriteError: The disk or the permissions refuse, or `path` is something other than a folder.
    """
    path = Path(path).resolve()  # a link to a folder stays, what it names is replaced
    if path.exists() and not path.is_dir():
        raise WriteError(f"cannot write {path}: a file is there. Choose a new folder, or take the file away.")
    with _writing(path):
        made = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        try:
            yield temporary
        except OSError as e:
            if e.errno not in DISK:
                raise
            raise _cannot_write(path, e) from e
        with _writing(path):
            temporary.chmod(0o755)
            _sync_tree(temporary)
            if os.path.lexists(path):
                _exchange(temporary, path)
            else:
                temporary.rename(path)
            _sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: something is in it now, the new folder as a rule
            for folder in made:
                folder.rmdir()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise _cannot_write(path, e) from e


def _cannot_write(path: Path, e: OSError) -> WriteError:
    return WriteError(f"cannot write {path}: {e.strerror or e}. Choose a folder you may write to, with free space.")


def _exchange(new: Path, old: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        paths = os.fsencode(new), os.fsencode(old)
        if libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
            return
    # No exchange on this system or file system: two renames, the old one kept until the second holds.
    aside = old.with_name(f".{old.name}.old-{os.getpid()}")
    old.rename(aside)
    try:
        new.rename(old)
    except OSError:
        aside.rename(old)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            handle = os.open(Path(root) / name, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        _sync_folder(Path(root))


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
