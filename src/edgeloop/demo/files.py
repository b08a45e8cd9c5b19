"""Files of the demo, each written whole or not at all, and the mark of the folder they lie in."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from edgeloop.atomic import write_file
from edgeloop.errors import WriteError

MARK = ".edgeloop-demo"  # lies in every folder that a demo made: what lies there may be written over


def claim_folder(out: Path) -> None:
    """Make `out` the demo's folder. What an earlier demo left in it may be written over, other files never.

    Raises:
        WriteError: It is a file, holds what no demo made, or cannot be written.
    """
    try:
        if out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file():
            raise WriteError(
                f"{out} holds files that the demo did not make, and they are not overwritten",
                advice="Choose a new folder with -o.",
            )
    except OSError as e:
        raise WriteError(f"cannot read the folder {out} ({e.strerror})", advice="Choose another one with -o.") from e
    if out.exists() and not out.is_dir():
        raise WriteError(f"cannot write {out}: a file is there", advice="Choose a new folder with -o.")
    write_file(out / MARK, b"")


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    packed = io.BytesIO()
    np.savez(packed, **arrays)  # type: ignore[arg-type]
    write_file(path, packed.getvalue())
