"""Where things lie on a device. Python 3.9 syntax."""

from __future__ import annotations

import os

HOME = "EDGELOOP_HOME"
DEFAULT_HOME = "~/.edgeloop"  # ssh.py names both in its shell lines too


def home() -> str:
    """The folder that edgeloop keeps on a device: $EDGELOOP_HOME, or ~/.edgeloop."""
    return os.path.realpath(os.path.expanduser(os.environ.get(HOME) or DEFAULT_HOME))


def resolved(root: str) -> str:
    """An absolute folder as it is; another one below `home()`. It need not be there yet."""
    return os.path.realpath(root if os.path.isabs(root) else os.path.join(home(), root))


def confined(root: str, path: str) -> str:
    """`root/path`, links followed.

    Raises:
        ValueError: It leads out of `root`.
    """
    found = os.path.realpath(os.path.join(root, path))
    if os.path.commonpath([found, root]) != root:
        raise ValueError(f"{path!r} leads out of the agent's root")
    return found
