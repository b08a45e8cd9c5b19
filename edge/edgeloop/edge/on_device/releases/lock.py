"""A lock of a folder that a death lets go of. Python 3.9 syntax, the standard library."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from edgeloop.atomic import make_folder
from edgeloop.errors import DeviceError
from edgeloop.processes.file_lock import exclusive

LOCK_S = 3.0


@contextlib.contextmanager
def locked(folder: str, what: str) -> Iterator[None]:
    """Hold the lock of that folder while the block runs; a process that dies releases it.

    Raises:
        DeviceError: Another process holds it for LOCK_S: a program whose host has gone needs a second to notice.
    """
    make_folder(folder)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(os.path.join(folder, "lock"), LOCK_S))
        except TimeoutError as e:
            raise DeviceError(f"{what}: another deploy is running there", advice="Try again when it has ended.") from e
        yield
