"""How a host sends a file to a device: the one request that both agents answer (receive.py does it).

It has a module of its own because the agent that keeps releases needs no other request of protocol.py: a device reads
its program from source, and the sixteen dataclasses there cost a deploy without changes 10 ms. Python 3.9 syntax, the
standard library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgeloop.processes.messages import Request


@dataclass(frozen=True)
class PushReply:
    """Bytes that need not be sent again, and whether the file stands under its name."""

    have: int
    done: bool


@dataclass(frozen=True)
class PushRequest(Request[PushReply]):
    """A file below the agent's root. Without `offset`: how much of it is there? With it, the payload is the next piece.

    Attributes:
        size: Of the whole file, in bytes; `sha256` in hex.
    """

    OP: ClassVar[str] = "push"
    REPLY: ClassVar[type] = PushReply
    path: str
    size: int
    sha256: str
    offset: int | None = None
