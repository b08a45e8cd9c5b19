"""A path in, the regular file there out. Python 3.9 syntax, the standard library.

Opening a FIFO or a device waits for its other end, and no signal ends that wait.
"""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from edgeloop.errors import DataError


def open_regular(path: str) -> BinaryIO:
    """The file, opened to be read.

    Raises:
        DataError: It is not there, not readable, or a folder, FIFO, socket or device.
    """
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as e:
        raise DataError(f"{path} cannot be read ({e.strerror})", advice="Check that it is there and readable.") from e
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise DataError(f"{path} is not a regular file", advice="Expected an image, .npy or .npz file.")
    return file
