"""Models of single devices, kept as files until they have taught the model of their round."""

from __future__ import annotations

from pathlib import Path

from flwr.app import Message

from edgeloop.atomic import discard, write_file
from edgeloop.federated.rounds.aggregation.collect import Collector
from edgeloop.federated.rounds.guard.update import Update
from edgeloop.federated.rounds.records import weights_bytes


class KeptModels:
    """A collector that keeps the models of `most` devices: those with the smallest node ids, whoever answers first."""

    def __init__(self, inner: Collector, folder: Path, most: int) -> None:
        self.inner, self.folder, self.most = inner, folder, most
        self.nodes: list[int] = []
        discard(folder)  # of the same attempt of a server that was killed

    def add(self, reply: Message, update: Update) -> None:
        self.inner.add(reply, update)
        self.nodes = sorted([*self.nodes, update.node])
        left_out = self.nodes.pop() if len(self.nodes) > self.most else None
        if left_out == update.node:
            return
        write_file(self._file(update.node), weights_bytes(update.arrays))
        if left_out is not None:
            self._file(left_out).unlink(missing_ok=True)

    def replies(self) -> list[Message]:
        return self.inner.replies()

    def _file(self, node: int) -> Path:
        return self.folder / f"{node}.npz"
