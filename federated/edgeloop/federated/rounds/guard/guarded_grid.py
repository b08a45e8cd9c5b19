"""Flower's Grid behind a guard: replies that would spoil the mean do not pass, and every refusal is counted.

A Grid sees every message, so the guard holds under each of Flower's strategies, unchanged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from edgeloop.federated.rounds.guard.options import GuardOptions
from edgeloop.federated.rounds.guard.update import Reason, Refusal, Update, base_of, judge


class GuardedGrid(Grid):
    """Wraps a Grid.

    Attributes:
        faults: Refused replies by node, over the whole run.
        refused: Those of the round that is open.
        seen: The round of each update that counted, by its hash.
        chosen: The nodes that a strategy may sample from in this round.
    """

    def __init__(self, inner: Grid, options: GuardOptions) -> None:
        self.inner, self.options = inner, options
        self.faults: Counter[int] = Counter()
        self.seen: dict[str, int] = {}
        self.refused: list[tuple[int, Refusal]] = []
        self.chosen: tuple[int, ...] = ()
        self._asked: dict[str, int] = {}
        self._answered: set[int] = set()
        self._round = 0
        self._base = base_of({})

    def open_round(self, number: int, base: Mapping[str, np.ndarray], chosen: Iterable[int]) -> None:
        """Ask the nodes `chosen` in round `number`, whose weights are `base`. Replies to earlier messages are void."""
        if number != self._round:
            self.refused = []
        self._round, self.chosen, self._base = number, tuple(chosen), base_of(base)
        self._asked, self._answered = {}, set()

    @property
    def benched(self) -> set[int]:
        """Nodes that are asked no more."""
        return {node for node, faults in self.faults.items() if faults >= self.options.bench_after}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        sent = list(messages)
        ids = list(self.inner.push_messages(sent))
        self._asked.update({id: message.metadata.dst_node_id for id, message in zip(ids, sent, strict=True)})
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that have come; `update_of` says which of them count."""
        return self.inner.pull_messages(message_ids)

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
        found = judge(reply, self._base, self.options)
        if isinstance(found, Refusal) or not found.norm:  # one that changes nothing may come again
            return found
        earlier = self.seen.setdefault(found.sha256, self._round)
        if earlier != self._round:
            return Refusal(Reason.REPLAY, f"the arrays are those of an update of round {earlier}")
        return found

    def get_node_ids(self) -> Iterable[int]:
        """The chosen nodes: a strategy samples all of them."""
        return self.chosen

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self.inner.send_and_receive(messages, timeout=timeout)

    @property
    def run(self) -> Any:
        return self.inner.run

    def set_run(self, run: Any) -> None:
        self.inner.set_run(run)

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        return self.inner.create_message(*args, **kwargs)
