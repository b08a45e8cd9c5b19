"""The user's data: what is kept until the user deletes it, unlike the cache."""

from __future__ import annotations

from pathlib import Path


def data_folder() -> Path:
    """edgeloop's folder in the user's data, as the system has it: on Linux below $XDG_DATA_HOME or ~/.local/share.

    It may not be there yet.
    """
    from platformdirs import user_data_path  # here, for `edgeloop --help` needs none of it

    return user_data_path("edgeloop", appauthor=False)
