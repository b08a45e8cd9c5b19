"""An attempt at a round whose server was killed, gone on with: updates that were accepted count, and their devices are
asked no more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import Message

from edgeloop.federated.rounds.aggregation.collect import Collector
from edgeloop.federated.rounds.collect_round import without_arrays
from edgeloop.federated.rounds.guard.guarded_grid import GuardedGrid
from edgeloop.federated.rounds.guard.update import Update
from edgeloop.federated.rounds.journal.contents import Contents
from edgeloop.federated.rounds.journal.journal import Journal
from edgeloop.federated.rounds.negotiation.negotiated_grid import NegotiatedGrid


@dataclass
class Continued:
    """Of one attempt.

    Attributes:
        nodes: Those whose update counts; where devices have new ids, the new ones. One that is away has its old one.
    """

    attempt: int
    nodes: set[int]
    replies: Iterator[Message]

    @classmethod
    def find(
        cls, number: int, journal: Journal, contents: Contents, grid: GuardedGrid, *, numbered: bool
    ) -> Continued | None:
        """The attempt at a round that is open, where the contents of all its updates are there.

        None too where a device may be connected under an id that is not known to be its own: it would be asked, and
        count twice.

        Args:
            numbered: No two devices have the same label.
        """
        attempt = journal.unfinished_attempt(number)
        entries = [] if attempt is None else journal.updates(number, attempt)
        replies = None if attempt is None else contents.replies(number, attempt, entries)
        nodes = None if replies is None else _connected_as(entries, grid, numbered=numbered)
        return None if attempt is None or replies is None or nodes is None else cls(attempt, nodes, replies)

    def count(self, grid: GuardedGrid, collector: Collector) -> list[Update]:
        """Hand the updates to the collector; they come without their arrays."""
        counted = []
        for reply in self.replies:
            update = grid.kept(reply)
            collector.add(reply, update)
            counted.append(without_arrays(update))
        return counted


def _connected_as(entries: Sequence[dict[str, Any]], grid: GuardedGrid, *, numbered: bool) -> set[int] | None:
    """The nodes that the devices of the entries are now: by their ids, else by their labels; the old ids of those that
    are away, as the labels of all others show. None where neither tells."""
    assert isinstance(grid.inner, NegotiatedGrid)
    connected = {*grid.inner.inner.get_node_ids(), *grid.chosen}  # whoever is selected now
    entered = {int(entry["node"]): str(entry["device"]) for entry in entries}
    if entered.keys() <= connected:
        return set(entered)
    if not numbered:
        return None
    grid.inner.query(connected - set(grid.inner.nodes))
    labels = {grid.inner.nodes[node].device: node for node in connected}
    if "" in labels or len(labels) < len(connected) or len(set(entered.values())) < len(entered):
        return None
    found = {node if node in connected else labels.get(device, node) for node, device in entered.items()}
    return found if len(found) == len(entered) else None
