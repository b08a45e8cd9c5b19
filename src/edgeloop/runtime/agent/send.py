"""A file sent to an agent in pieces; what is there already, whole or in part, does not travel again.

Python 3.9 syntax, the standard library: a host sends files to a device with it, and a device what it fetched itself to
the agent that keeps its releases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgeloop.errors import DeviceError
from edgeloop.processes.conversation import Conversation
from edgeloop.runtime.agent.push import PushRequest

PIECE_BYTES = 4 << 20  # of a file at a time: what a broken upload loses at most

Read = Callable[[int, int], bytes]  # (offset, at most so many bytes) -> the file's bytes from there on


def _untold(size_bytes: int) -> None:
    """Nobody asked."""


def send_file(to: Conversation, file: Path, request: PushRequest, sent: Callable[[int], None] = _untold) -> None:
    """Push `file`. Raises as `send_pieces`."""
    with file.open("rb") as source:

        def read(offset: int, size: int) -> bytes:
            source.seek(offset)
            return source.read(size)

        send_pieces(to, read, request, sent)


def send_pieces(to: Conversation, read: Read, request: PushRequest, sent: Callable[[int], None] = _untold) -> None:
    """Push a file that `read` reads, from where it is not there yet. `sent` is told of each piece that arrived.

    Raises:
        IntegrityError: It arrived damaged.
        DeviceError: The agent died or did not answer in time.
        EdgeloopError: What `read` raises.
    """
    reply, _ = to.request(request)
    while not reply.done:
        have = reply.have
        piece = read(have, PIECE_BYTES)
        reply, _ = to.request(replace(request, offset=have), piece)
        sent(len(piece))
        if not reply.done and reply.have <= have:
            raise DeviceError(
                f"{request.path} stays at {have} bytes on the device",
                advice="Free space on its disk.",
                where=to.where,
            )
