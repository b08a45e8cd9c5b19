"""Files of the demo, each written whole or not at all."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.atomic import write_file


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    packed = io.BytesIO()
    np.savez(packed, **arrays)  # type: ignore[arg-type]
    write_file(path, packed.getvalue())


def save_keras(model: Any, path: Path) -> None:
    """Keras writes only to a path of its own that ends in .keras; the bytes then go where they belong in one step."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        write_file(path, (Path(folder) / "model.keras").read_bytes())
