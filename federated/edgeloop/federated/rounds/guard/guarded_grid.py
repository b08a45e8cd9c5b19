"""Flower's Grid behind a guard: replies that would spoil the mean do not pass, and every refusal is counted.

A Grid sees every message, so the guard holds under each of Flower's strategies, unchanged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from edgeloop.errors import IntegrityError
from edgeloop.federated.rounds.compression_options import CompressionOptions
from edgeloop.federated.rounds.grid_decorator import GridDecorator
from edgeloop.federated.rounds.guard.options import GuardOptions
from edgeloop.federated.rounds.guard.refusal import Reason, Refusal
from edgeloop.federated.rounds.guard.sent_weights import base_of
from edgeloop.federated.rounds.guard.update import Update, judge
from edgeloop.federated.rounds.journal.journal import Seen


class GuardedGrid(GridDecorator):
    """Wraps a Grid.

    Attributes:
        faults: Refused replies by node, over the whole run.
        refused: Those of the round that is open.
        seen: Each update that counted, by its hash.
        chosen: The nodes that a strategy may sample from in this round.
        base: The weights of the round.
    """

    def __init__(self, inner: Grid, options: GuardOptions, compression: CompressionOptions | None = None) -> None:
        super().__init__(inner)
        self.options, self.compression = options, compression or CompressionOptions()
        self.faults: Counter[int] = Counter()
        self.seen: dict[str, Seen] = {}
        self.refused: list[tuple[int, Refusal]] = []
        self.chosen: tuple[int, ...] = ()
        self._asked: dict[str, int] = {}
        self._answered: set[int] = set()
        self._round = 0
        self.base = base_of({})

    def open_round(self, number: int, base: Mapping[str, np.ndarray], chosen: Iterable[int]) -> None:
        """Ask the nodes `chosen` in round `number`, whose weights are `base`. Replies to earlier messages are void."""
        if number != self._round:
            self.refused = []
        self._round, self.chosen, self.base = number, tuple(chosen), base_of(base)
        self._asked, self._answered = {}, set()
        self.abandon()

    @property
    def benched(self) -> set[int]:
        """Nodes that are asked no more."""
        return {node for node, faults in self.faults.items() if faults >= self.options.bench_after}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        sent = list(messages)
        ids = list(self.inner.push_messages(sent))
        self._asked.update({id: message.metadata.dst_node_id for id, message in zip(ids, sent, strict=True)})
        return ids

    def update_of(self, reply: Message) -> Update | None:
        """The update of a reply; None where it was refused, which is then in `refused` and `faults`."""
        asked = self._asked.get(reply.metadata.reply_to_message_id)
        node = reply.metadata.src_node_id if asked is None or reply.has_content() else asked
        found = self._judged(reply, node, asked)
        if isinstance(found, Update):
            return found
        self.refused.append((node, found))
        self.faults[node] += found.reason is not Reason.FAILED  # an honest device may be out of reach
        return None

    def _judged(self, reply: Message, node: int, asked: int | None) -> Update | Refusal:
        if asked is None or asked != node:
            return Refusal(Reason.OTHER_ROUND, f"it answers no message that the node was sent in round {self._round}")
        if node in self._answered:
            return Refusal(Reason.REPEATED, f"the node has answered in round {self._round}")
        self._answered.add(node)
        found = judge(reply, self.base, self.options, self.compression)
        if isinstance(found, Refusal) or not found.norm:  # one that changes nothing may come again
            return found
        return self.replay(found) or found

    def replay(self, update: Update) -> Refusal | None:
        """A refusal where an update of an earlier round comes again.

        A device whose training ends in the same weights, wherever it begins, is honest: its reply names the weights of
        this round, which that of the earlier round did not. So is one that trains from the same weights as then. What
        was added to other weights comes again by no honest training, so a compressed update has to have the same base.
        """
        earlier = self.seen.setdefault(update.sha256, Seen(self._round, update.base))
        if earlier.round == self._round or update.fresh or earlier.base == update.base:
            return None
        return Refusal(Reason.REPLAY, f"the arrays are those of an update of round {earlier.round}")

    def kept(self, reply: Message) -> Update:
        """The update of a reply that an earlier server accepted in the round that is open.

        Raises:
            IntegrityError: It does not fit the round.
        """
        node = reply.metadata.src_node_id
        self._answered.add(node)
        found = judge(reply, self.base, self.options, self.compression)
        if isinstance(found, Update):
            found = self.replay(found) or found
        if isinstance(found, Refusal):
            raise IntegrityError(
                f"the update of node {node} that the journal keeps of round {self._round} does not fit: {found.detail}",
                advice="Remove the folder journal/updates of the run, then continue it with --resume.",
            )
        return found

    def get_node_ids(self) -> Iterable[int]:
        """The chosen nodes: a strategy samples all of them."""
        return self.chosen
