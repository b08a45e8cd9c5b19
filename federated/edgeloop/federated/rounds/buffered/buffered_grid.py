"""The guarded grid of buffered rounds: a reply counts for the version of the weights that its message carried."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import Message

from edgeloop.federated.rounds.compression_options import CompressionOptions
from edgeloop.federated.rounds.guard.guarded_grid import GuardedGrid
from edgeloop.federated.rounds.guard.options import GuardOptions
from edgeloop.federated.rounds.guard.refusal import Reason, Refusal
from edgeloop.federated.rounds.guard.sent_weights import Base, base_of
from edgeloop.federated.rounds.guard.update import Update, judge
from edgeloop.federated.rounds.negotiation.negotiated_grid import NegotiatedGrid


@dataclass(frozen=True)
class Taken:
    """A reply that counts, and the version of the weights that it started from."""

    reply: Message
    update: Update
    base: Mapping[str, np.ndarray]
    version: int


@dataclass(frozen=True)
class Sent:
    """A message that was not answered yet: to whom, with which version, when (seconds of the monotonic clock)."""

    node: int
    version: int
    at: float


class BufferedGrid(GuardedGrid):
    """Wraps a Grid.

    Attributes:
        version: The newest: the number of the last committed round.
        sent: Messages that were not answered, by id.
        tried: Nodes that were asked to train from the newest version.
    """

    def __init__(
        self, inner: NegotiatedGrid, options: GuardOptions, compression: CompressionOptions, max_staleness: int
    ) -> None:
        super().__init__(inner, options, compression)
        self.max_staleness, self.version = max_staleness, 0
        self.sent: dict[str, Sent] = {}
        inner.waiting = self.sent
        self.tried: set[int] = set()
        self._bases: dict[int, Base] = {}
        self._given: set[tuple[int, str]] = set()  # node and hash of the arrays, of the round that is open

    def open_version(self, version: int, weights: Mapping[str, np.ndarray]) -> None:
        """From now on devices are sent these weights. Messages that are too old now are given up."""
        self.version, self.refused, self.tried = version, [], set()
        self._given = set()
        self._round = version + 1
        self.base = self._bases[version] = base_of(weights)
        for id, sent in list(self.sent.items()):
            if version - sent.version > self.max_staleness:
                del self.sent[id]
                self._refuse(sent.node, self._stale(sent))
        needed = {version, *(sent.version for sent in self.sent.values())}
        self._bases = {number: base for number, base in self._bases.items() if number in needed}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        sent = list(messages)
        ids = list(self.inner.push_messages(sent))
        for id, message in zip(ids, sent, strict=True):
            node = message.metadata.dst_node_id
            self.sent[id] = Sent(node, self.version, time.monotonic())
            self.tried.add(node)
        return ids

    def busy(self, patience_s: float) -> set[int]:
        """Nodes that were sent a message that recently and have not answered it."""
        now = time.monotonic()
        return {sent.node for sent in self.sent.values() if now - sent.at <= patience_s}

    def take(self, reply: Message) -> Taken | None:
        """What counts of a reply; None where it was refused, which is then in `refused` and `faults`."""
        sent = self.sent.pop(reply.metadata.reply_to_message_id, None)
        node = reply.metadata.src_node_id if sent is None or reply.has_content() else sent.node
        found = self._found(reply, node, sent)
        if isinstance(found, Refusal):
            self._refuse(node, found)
        if sent is None or isinstance(found, Refusal):
            return None
        return Taken(reply, found, self._bases[sent.version].arrays, sent.version)

    def _found(self, reply: Message, node: int, sent: Sent | None) -> Update | Refusal:
        if sent is None or sent.node != node:
            return Refusal(Reason.OTHER_ROUND, "it answers no message of this run, or one that was answered before")
        if self.version - sent.version > self.max_staleness:
            return self._stale(sent)
        found = judge(reply, self._bases[sent.version], self.options, self.compression)
        if isinstance(found, Refusal) or not found.norm:  # one that changes nothing may come again
            return found
        earlier, given = self.seen.setdefault(found.sha256, self._round), (node, found.sha256)
        if earlier != self._round or given in self._given:
            return Refusal(Reason.REPLAY, f"the arrays are those of an update of round {earlier}")
        self._given.add(given)
        return found

    def _stale(self, sent: Sent) -> Refusal:
        age = self.version - sent.version
        return Refusal(Reason.STALE, f"it trained weights {age} versions old, and {self.max_staleness} are allowed")

    def _refuse(self, node: int, refusal: Refusal) -> None:
        self.refused.append((node, refusal))
        self.faults[node] += refusal.reason not in BLAMELESS


BLAMELESS = (Reason.FAILED, Reason.STALE)  # an honest device may be out of reach, or slow
