"""Which node a key was on which server: a device that was killed takes its place again at once.

Without it the server refuses a key for up to a minute, because it still counts the killed process as connected.
"""

from __future__ import annotations

import json

from edgeloop.atomic import write_file
from edgeloop.hashes import digest_of


def read_node(path: str, address: str, public_key: bytes) -> int | None:
    """The node id that this key had on that server; None: not known."""
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(1 << 16))
        known = found["key"] == digest_of(public_key) and found["server"] == address
        return int(found["node"]) if known else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_node(path: str, address: str, public_key: bytes, node_id: int) -> None:
    """Remember it.

    Raises:
        WriteError: The file cannot be written.
    """
    document = {"server": address, "key": digest_of(public_key), "node": str(node_id)}
    write_file(path, json.dumps(document).encode())
