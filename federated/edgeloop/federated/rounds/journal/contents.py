"""Accepted updates as they came, compressed or not: a file each, so that a killed server need not ask for them again.

`updates/round-N-attempt-A/NODE` holds the content of a reply as Flower's protobuf message. It is on the disk (fsync)
before the journal names the update, so an update that the journal names is whole here. Where all of them together
pass the limit, those of the oldest rounds are removed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flwr.app import Message, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as PackedRecords

from edgeloop.atomic import discard, write_file
from edgeloop.federated.rounds.journal.journal import UPDATES
from edgeloop.hashes import digest, digest_of


class Contents:
    """Those below `folder`, the journal's. `limit_bytes`: of all files together; None: nothing is kept."""

    def __init__(self, folder: Path, limit_bytes: int | None) -> None:
        self.folder, self.limit_bytes = folder / UPDATES, limit_bytes
        self._total = 0
        self._sizes: dict[int, Counter[Path]] = {}  # bytes by round and folder
        for path in self.folder.glob("*/*"):
            self._count(path.parent, path.stat().st_size)

    def add(self, number: int, attempt: int, reply: Message) -> str | None:
        """Store the content of an accepted reply.

        Returns:
            The sha256 of what was stored; None: nothing is kept.

        Raises:
            WriteError: The disk refuses.
        """
        if self.limit_bytes is None:
            return None
        packed = recorddict_to_proto(reply.content).SerializeToString()
        folder = self._attempt(number, attempt)
        path = folder / str(reply.metadata.src_node_id)
        more = len(packed) - (path.stat().st_size if path.is_file() else 0)  # a killed server may not have named it
        while self._total + more > self.limit_bytes and min(self._sizes, default=number) < number:
            self.discard(min(self._sizes))
        write_file(path, packed)
        self._count(folder, more)
        return digest_of(packed)

    def rounds(self) -> list[int]:
        """Those of which updates are kept."""
        return sorted(self._sizes)

    def discard(self, number: int, but: int | None = None) -> None:
        """Remove those of a round, `but` those of one attempt."""
        spared = None if but is None else self._attempt(number, but)
        for folder in self.folder.glob(f"round-{number}-attempt-*"):
            if folder != spared:
                discard(folder)
                self._count(folder, -self._sizes.get(number, Counter())[folder])
        if not sum(self._sizes.get(number, Counter()).values()):
            self._sizes.pop(number, None)

    def replies(self, number: int, attempt: int, entries: list[dict[str, Any]]) -> Iterator[Message] | None:
        """The replies that the journal's `entries` of an attempt name, one at a time; None where one is not here, or
        is not what was stored."""
        files = {self._attempt(number, attempt) / entry["node"]: entry.get("contents") for entry in entries}
        whole = files and all(path.is_file() and digest(path) == sha256 for path, sha256 in files.items())
        return map(_reply, files) if whole else None

    def _count(self, folder: Path, more: int) -> None:
        self._total += more
        self._sizes.setdefault(int(folder.name.split("-")[1]), Counter())[folder] += more

    def _attempt(self, number: int, attempt: int) -> Path:
        return self.folder / f"round-{number}-attempt-{attempt}"


def _reply(path: Path) -> Message:
    packed = PackedRecords()
    packed.ParseFromString(path.read_bytes())
    asked = Message(RecordDict(), dst_node_id=int(path.name), message_type="train")
    return Message(recorddict_from_proto(packed), reply_to=asked)
