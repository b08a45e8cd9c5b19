"""Write a file or a folder so that a kill or a power cut leaves the old one or the new one, whole.

What is written is on the disk before its name is, and the name before the call returns. `write_file` and `new_folder`
are for users' files and say in one line what refused; the other functions leave the OSError to a caller who knows more
(a device says what still runs there). Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from edgeloop.disk_errors import DISK, write_error, writing
from edgeloop.errors import WriteError
from edgeloop.leftovers import held, remove_leftovers

log = logging.getLogger(__name__)
NEW = ".new"  # ends the name of what is to take another's place; whoever has the folder to himself may sweep it
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace `path` by `data`, as `replace_file`; folders that miss on the way are made.

    Raises:
        WriteError: The disk or the permissions refuse.
    """
    with writing(path):
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        replace_file(path, data)


def replace_file(path: str | os.PathLike[str], data: bytes) -> None:
    """A temporary sibling, fsync, rename, fsync of the folder.

    Raises:
        OSError: The disk or the permissions refuse; the old file is there as it was.
    """
    temporary = temporary_name(path)
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, path)
        log.info("wrote %s, %d bytes", os.fspath(path), len(data))
    except BaseException:
        with contextlib.suppress(OSError):  # it may never have been made
            os.unlink(temporary)
        raise


def temporary_name(path: str | os.PathLike[str]) -> str:
    """A sibling of `path` that nobody else uses: two writers of one file at once disturb each other in nothing."""
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(folder, f".{_short(name)}.{os.urandom(6).hex()}{NEW}")


def _temporary_pattern(name: str) -> str:
    """A regular expression of the temporary names of a file or folder."""
    return rf"\.{re.escape(_short(name))}\.[0-9a-f]{{12}}{re.escape(NEW)}"


def _short(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:200])  # a file system takes 255 bytes


def publish(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Rename what is on the disk already; the new name is there too when it returns."""
    os.replace(source, target)
    before, after = (os.path.dirname(os.path.abspath(path)) for path in (source, target))
    sync(after)
    if before != after:
        sync(before)


def make_folder(path: str) -> None:
    """With its parents, for this user alone, each on the disk when it returns."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(os.path.abspath(path))
    make_folder(parent)
    with contextlib.suppress(FileExistsError):  # another process makes the same ones
        os.mkdir(path, 0o700)
    sync(parent)


def sync(path: str | os.PathLike[str]) -> None:
    """What the file holds, or which names the folder has, is on the disk when it returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: str | os.PathLike[str]) -> None:
    """All files and folders below, and the folder itself."""
    for root, _, names in os.walk(folder):
        for name in names:
            sync(os.path.join(root, name))
        sync(root)


def discard(path: str | os.PathLike[str]) -> None:
    """Remove a file, a link or a whole folder, if it is there."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def sweep(folder: str) -> None:
    """Remove what killed writers left in a folder where nobody else writes now."""
    for name in sorted(os.listdir(folder)):
        if name.endswith(NEW):
            discard(os.path.join(folder, name))


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary sibling to fill; it takes the place of `path` when the block ends well.

    An existing folder is exchanged in one step (Linux `renameat2`), then removed. When the block
    raises, the sibling is removed, with the parents that were made for it, and `path` is as it was. A
    sibling that a killed process left is removed by the next.

    Raises:
        WriteError: The disk or the permissions refuse, or `path` is something other than a folder.
    """
    path = Path(path).resolve()  # a link to a folder stays, what it names is replaced
    if path.exists() and not path.is_dir():
        raise WriteError(f"cannot write {path}: a file is there", advice="Choose a new folder, or remove the file.")
    with writing(path):
        remove_leftovers(str(path.parent), re.compile(_temporary_pattern(path.name)))
        made = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(temporary_name(path))
        temporary.mkdir()
    try:
        with held(temporary):
            try:
                yield temporary
            except OSError as e:
                if e.errno not in DISK:
                    raise
                raise write_error(path, e) from e
            _take_place(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # a rest that cannot be removed changes nothing for who waits for `path`
            discard(temporary)
        with contextlib.suppress(OSError):  # not empty: something is in it now, the new folder as a rule
            for folder in made:
                folder.rmdir()


def _take_place(temporary: Path, path: Path) -> None:
    with writing(path):
        sync_tree(temporary)
        if os.path.lexists(path):
            _exchange(temporary, path)
        else:
            os.replace(temporary, path)
        sync(path.parent)
        log.info("wrote the folder %s", path)


def _exchange(new: Path, old: Path) -> None:
    import ctypes  # with libffi: no device exchanges folders

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
    with contextlib.suppress(OSError):  # as in `new_folder`
        discard(aside)
