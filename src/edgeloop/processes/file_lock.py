"""A file that one process holds at a time, and that a process which dies lets go of. Python 3.9 syntax.

Source: https://man7.org/linux/man-pages/man2/flock.2.html
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from typing import IO

LOOK_S = 0.05


@contextlib.contextmanager
def exclusive(mark: str | os.PathLike[str], timeout_s: float) -> Iterator[IO[bytes]]:
    """Hold `mark`, which is made where it is missing and stays, while the block runs; the file, open for appending.

    Raises:
        TimeoutError: Somebody else still held it after `timeout_s`.
        OSError: It cannot be opened for writing.
    """
    deadline = time.monotonic() + timeout_s
    with open(mark, "ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as e:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{os.fspath(mark)} was held for {timeout_s:g} s") from e
                time.sleep(LOOK_S)
        yield file
