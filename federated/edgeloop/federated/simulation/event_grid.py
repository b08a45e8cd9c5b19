"""Flower's Grid in simulated time: a reply exists once its device has trained so long; nobody waits for it.

A server asks such a grid as any other. Where nothing has come, the clock goes on to the next reply, so hours of slow
devices take the time of their training alone. A device answers its messages one after another. A server has to ask for
every message until it is answered, or abandon all: the clock does not pass a reply that nobody has fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from flwr.app import Message, RecordDict


@dataclass
class _Pending:
    message: Message
    due: float


class EventGrid:
    """Args:
        nodes: What each node answers to a message; called when the reply is fetched.
        durations: Simulated seconds of one training, by node.

    Attributes:
        now: Simulated seconds since the beginning.
        pushed: How many messages each node was sent.
        most: The largest number of nodes that trained at the same time.
    """

    def __init__(self, nodes: Mapping[int, Callable[[Message], RecordDict]], durations: Mapping[int, float]) -> None:
        self.nodes, self.durations, self.now, self.most = dict(nodes), durations, 0.0, 0
        self.pushed: dict[int, int] = dict.fromkeys(self.nodes, 0)
        self._free = dict.fromkeys(self.nodes, 0.0)
        self._pending: dict[str, _Pending] = {}
        self._number = 0

    def get_node_ids(self) -> Iterable[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            node = message.metadata.dst_node_id
            self._number += 1
            id = str(self._number)
            message.metadata.__dict__["_message_id"] = id
            self._free[node] = max(self.now, self._free[node]) + self.durations[node]
            self._pending[id] = _Pending(message, self._free[node])
            self.pushed[node] += 1
            ids.append(id)
        self.most = max(self.most, len({pending.message.metadata.dst_node_id for pending in self._pending.values()}))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that are due, first come first; where no reply at all is due, after the clock went on to the next."""
        asked = [id for id in message_ids if id in self._pending]
        if asked and all(pending.due > self.now for pending in self._pending.values()):
            self.now = min(pending.due for pending in self._pending.values())
        came = sorted((id for id in asked if self._pending[id].due <= self.now), key=lambda id: self._pending[id].due)
        taken = [self._pending.pop(id).message for id in came]
        return [Message(self.nodes[m.metadata.dst_node_id](m), reply_to=m) for m in taken]

    def abandon(self) -> None:
        """Forget replies that nobody will fetch: the server of a synchronous round never looks back."""
        self._pending = {}
