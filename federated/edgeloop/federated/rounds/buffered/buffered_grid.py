"""The guarded grid of buffered rounds: a reply counts for the version of the weights that its message carried."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

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
    """A message that was not answered yet.

    Attributes:
        at: When it was sent, in seconds of the monotonic clock.
        base: The weights of its version; None: that version is too old, so no answer to it counts.
    """

    node: int
    version: int
    at: float
    base: Base | None


class BufferedGrid(GuardedGrid):
    """Wraps a Grid.

    Attributes:
        version: The newest: the number of the last committed round.
        sent: Messages that were not answered, by id.
        tried: Nodes that were asked to train from the newest version.
    """

    inner: NegotiatedGrid

    def __init__(
        self, inner: NegotiatedGrid, options: GuardOptions, compression: CompressionOptions, max_staleness: int
    ) -> None:
        super().__init__(inner, options, compression)
        self.max_staleness, self.version = max_staleness, 0
        self.sent: dict[str, Sent] = {}
        inner.waiting = self.sent
        self.tried: set[int] = set()
        self._given: set[tuple[int, str]] = set()  # node and hash of the arrays, of the round that is open

    def open_version(self, version: int, weights: Mapping[str, np.ndarray]) -> None:
        """From now on devices are sent these weights. Answers to messages that are too old now will not count."""
        self.version, self.refused, self.tried = version, [], set()
        self._given = set()
        self._round, self.base = version + 1, base_of(weights)
        for id, sent in list(self.sent.items()):
            if sent.base is not None and not self.is_recent(sent.node, sent.version):
                self.sent[id] = replace(sent, base=None)
                self.inner.forget(id)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        sent = list(messages)
        ids = list(self.inner.push_messages(sent))
        for id, message in zip(ids, sent, strict=True):
            node = message.metadata.dst_node_id
            self.sent[id] = Sent(node, self.version, time.monotonic(), self.base)
            self.tried.add(node)
        return ids

    def busy(self, patience_s: float) -> set[int]:
        """Nodes that were sent a message that recently and have not answered it."""
        now = time.monotonic()
        return {sent.node for sent in self.sent.values() if now - sent.at <= patience_s}

    def training(self, lost_s: float) -> set[int]:
        """Nodes that have not answered a message, and so are sent no other one: they would only fall further behind.

        Args:
            lost_s: A message whose answer would not count is lost after that long: its device was started again.
        """
        now = time.monotonic()
        return {sent.node for sent in self.sent.values() if sent.base is not None or now - sent.at <= lost_s}

    def is_recent(self, node: int, version: int) -> bool:
        """Whether an update of `node` from a version still counts. One that is too old is refused, blamelessly."""
        age = self.version - version
        if age > self.max_staleness:
            detail = f"it trained weights {age} versions old, and {self.max_staleness} are allowed"
            self._refuse(node, Refusal(Reason.STALE, detail))
        return age <= self.max_staleness

    def take(self, reply: Message) -> Taken | None:
        """What counts of a reply; None where it was refused, which is then in `refused` and `faults`."""
        sent = self.sent.pop(reply.metadata.reply_to_message_id, None)
        if sent is not None and sent.base is None:  # it was refused when it became too old
            return None
        node = reply.metadata.src_node_id if sent is None or reply.has_content() else sent.node
        found = self._found(reply, node, sent)
        if isinstance(found, Refusal):
            self._refuse(node, found)
        if sent is None or sent.base is None or isinstance(found, Refusal):
            return None
        return Taken(reply, found, sent.base.arrays, sent.version)

    def _found(self, reply: Message, node: int, sent: Sent | None) -> Update | Refusal:
        if sent is None or sent.base is None or sent.node != node:
            return Refusal(Reason.OTHER_ROUND, "it answers no message of this run, or one that was answered before")
        found = judge(reply, sent.base, self.options, self.compression)
        if isinstance(found, Refusal) or not found.norm:  # one that changes nothing may come again
            return found
        again, given = self.replay(found), (node, found.sha256)
        if again is None and given in self._given:
            again = Refusal(Reason.REPLAY, "the arrays are those of another update of the node in this round")
        self._given.add(given)
        return again or found

    def _refuse(self, node: int, refusal: Refusal) -> None:
        self.refused.append((node, refusal))
        self.faults[node] += refusal.reason not in BLAMELESS


BLAMELESS = (Reason.FAILED, Reason.STALE)  # an honest device may be out of reach, or slow
