"""What seeds the noise of private rounds."""

from __future__ import annotations

import os

ENTROPY_BYTES = 64


def system_entropy() -> bytes:
    """Bytes of the operating system: no two draws, and no two processes, have the same noise."""
    return os.urandom(ENTROPY_BYTES)
