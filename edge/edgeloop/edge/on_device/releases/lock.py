"""A lock of a folder that a death lets go of. Python 3.9 syntax, the standard library."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

from edgeloop.atomic import make_folder
from edgeloop.errors import DeviceError
from edgeloop.processes.file_lock import exclusive

LOCK_S = 3.0
HOLDER = b"releases.release_agent"  # the last word of its command line


@contextlib.contextmanager
def locked(folder: str, what: str, take_over: bool = False) -> Iterator[None]:
    """Hold the lock of that folder while the block runs; a process that dies releases it.

    `take_over`: end the process that holds it, which a folder of releases survives at every moment.

    Raises:
        DeviceError: Another process holds it for LOCK_S: a program whose host has gone needs a second to notice. With
            `take_over`: who holds it cannot be ended, or another one came first.
    """
    make_folder(folder)
    path = os.path.join(folder, "lock")
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(exclusive(path, 0.0 if take_over else LOCK_S))
        except TimeoutError as e:
            if not take_over or not _end_holder(path):
                raise DeviceError(
                    f"{what}: another deploy is running there",
                    advice="Try again when it has ended, which takes a minute where its connection was lost; or add "
                    "--take-over, which ends it.",
                ) from e
            try:
                file = stack.enter_context(exclusive(path, LOCK_S))
            except TimeoutError as again:
                raise DeviceError(
                    f"{what}: another deploy took over there at the same time", advice="Try again when it has ended."
                ) from again
        with contextlib.suppress(OSError):  # a full disk must not keep a device from going back
            file.truncate(0)
            file.write(str(os.getpid()).encode())
            file.flush()
        yield


def _end_holder(path: str) -> bool:
    """Whether the process that wrote its number into the lock was one of ours, and was killed."""
    try:
        with open(path, "rb") as file:
            pid = int(file.read(20))
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            ours = HOLDER in file.read().split(b"\0")[-2]
        if ours and pid != os.getpid():
            os.kill(pid, signal.SIGKILL)
        return ours
    except (OSError, ValueError, IndexError):  # it has just ended, or nobody knows who it is
        return False
