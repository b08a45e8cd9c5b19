"""sha256 in hex, of bytes and of files. Python 3.9 syntax, the standard library.

hashlib is loaded when a hash is asked for: with it comes OpenSSL, 4 MB that an agent which runs a model does without.
"""

from __future__ import annotations

import os

BLOCK_BYTES = 1 << 20


def digest_of(data: bytes) -> str:
    """sha256 of these bytes."""
    import hashlib

    return hashlib.sha256(data).hexdigest()


def digest(path: str | os.PathLike[str]) -> str:
    """sha256 of a file, which may be larger than the memory.

    Raises:
        OSError: It cannot be read.
    """
    import hashlib

    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            found.update(block)
    return found.hexdigest()
