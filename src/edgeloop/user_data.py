"""The user's data: what is kept until the user deletes it, unlike the cache."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path:
    """edgeloop/ in $XDG_DATA_HOME or ~/.local/share; it may not be there yet."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "edgeloop"
