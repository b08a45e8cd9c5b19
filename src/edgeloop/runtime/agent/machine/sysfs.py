"""Small files in which a kernel tells about a machine. Python 3.9 syntax, the standard library."""

from __future__ import annotations

UNKNOWN = "unknown"
UNSUPPORTED = "unsupported"


def text(path: str) -> str | None:
    """What a file says, without the ends; None where it is not there or may not be read."""
    try:
        with open(path, errors="replace") as file:
            return file.read().strip("\0 \n")
    except OSError:  # sensors also answer with errors: ENODATA, EIO, EAGAIN
        return None


def lines(path: str) -> list[str]:
    """The lines of a file; none where it is not there."""
    return (text(path) or "").splitlines()


def integer(path: str) -> int | None:
    """The number a file holds; None where it holds none."""
    try:
        return int(text(path) or "")
    except ValueError:
        return None
