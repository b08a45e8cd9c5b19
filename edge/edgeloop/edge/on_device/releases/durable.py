"""Writes that a power cut leaves whole, and a lock that a death lets go of. Python 3.9 syntax, the standard library."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from edgeloop.errors import DeviceError
from edgeloop.processes.file_lock import exclusive
from edgeloop.runtime.agent.receive import sync_folder

LOCK_S = 3.0
NEW = ".new"  # of what takes another's place by a rename


def write(path: str, data: bytes) -> None:
    """Replace a file: a temporary sibling, fsync, rename, fsync of the folder."""
    with open(path + NEW, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + NEW, path)
    sync_folder(os.path.dirname(path))


def make_folder(path: str) -> None:
    """With its parents, each on the disk when it returns."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    make_folder(parent)
    with contextlib.suppress(FileExistsError):  # another deployer makes the same ones
        os.mkdir(path, 0o700)
    sync_folder(parent)


def sync_tree(folder: str) -> None:
    """All files and folders below, and the folder itself, are on the disk when it returns."""
    for root, _, names in os.walk(folder):
        for name in names:
            sync_folder(os.path.join(root, name))  # a file is opened and synced as a folder is
        sync_folder(root)


@contextlib.contextmanager
def locked(folder: str, what: str) -> Iterator[None]:
    """Nobody else holds the lock of that folder while the block runs; a process that dies lets go of it.

    Raises:
        DeviceError: Somebody does, and still after LOCK_S: a program whose host has gone needs a second to see it.
    """
    make_folder(folder)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(os.path.join(folder, "lock"), LOCK_S))
        except TimeoutError as e:
            raise DeviceError(f"{what}: another deploy is running there", advice="Try again when it has ended.") from e
        yield
