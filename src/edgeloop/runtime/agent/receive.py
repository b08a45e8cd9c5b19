"""Files from the host, piece by piece, whole or not at all; an upload that broke off goes on where it ended.

Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import os
import re

from edgeloop.atomic import publish, sync
from edgeloop.errors import IntegrityError
from edgeloop.hashes import digest
from edgeloop.runtime.agent.paths import confined
from edgeloop.runtime.agent.push import PushReply, PushRequest

SHA256 = re.compile(r"[0-9a-f]{64}")


def receive(root: str, asked: PushRequest, piece: bytes) -> PushReply:
    """One push below `root`.

    Raises:
        ValueError: The path leads out of `root` or to a folder, the piece is not the next one, or `sha256` is none.
        IntegrityError: The whole has another sha256; nothing of it is kept.
    """
    path, size, sha256 = confined(root, asked.path), asked.size, asked.sha256
    if not SHA256.fullmatch(sha256):  # it becomes a part of a path
        raise ValueError(f"{sha256[:80]!r} is no sha256 in hex")
    if os.path.isfile(path) and os.path.getsize(path) == size and digest(path) == sha256:
        return PushReply(size, True)
    if os.path.isdir(path):  # the root is one too, and what is being uploaded would lie beside it
        raise ValueError(f"{asked.path!r} is a folder there")
    part = part_name(path, sha256)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    have = os.path.getsize(part) if os.path.exists(part) else 0
    if have > size:
        os.unlink(part)
        have = 0
    offset = asked.offset
    if offset is None and have < size:
        return PushReply(have, False)
    if offset is not None:
        if offset != have or offset + len(piece) > size:
            raise ValueError(f"a piece of {len(piece)} bytes at {offset} of {size}, where {have} are here")
        with open(part, "ab") as file:
            file.write(piece)
        have += len(piece)
    if have < size:
        return PushReply(have, False)
    _finish(part, path, sha256)
    return PushReply(size, True)


def part_name(path: str, sha256: str) -> str:
    """Where a file lies until all of it has come."""
    return f"{path}.{sha256[:16]}.part"


def _finish(part: str, path: str, sha256: str) -> None:
    if not os.path.exists(part):  # an empty file never had a piece
        open(part, "wb").close()
    if digest(part) != sha256:
        os.unlink(part)
        raise IntegrityError(
            f"{os.path.basename(path)} arrived damaged: its hash differs from the one announced",
            advice="Run the command again.",
        )
    sync(part)
    publish(part, path)
