"""Flower's Grid, where each node is sent what it can use: the codec that it knows, and no model that it holds.

A strategy sends the same message to every node. Here it becomes one for each node: `compression` is left out for a node
whose answer to `query` does not name the codec, and `model` for a node that holds it, by that answer or because it has
trained it. A node that has not answered yet is asked for the codec: it answers with its weights where it does not know
it. A node that has lost the model says so (`lacks`), and is sent the same message again with it, once.

Where `[selection]` demands anything of devices, those that do not comply are no nodes of this Grid.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterable
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from edgeloop.federated.device.compression.codec import Codec
from edgeloop.federated.device.compression.upload import COMPRESSION
from edgeloop.federated.device.metrics import ERROR, LACKS
from edgeloop.federated.rounds.compression_options import CompressionOptions
from edgeloop.federated.rounds.grid_decorator import GridDecorator
from edgeloop.federated.rounds.negotiation.node_class import NodeClass, node_class
from edgeloop.federated.rounds.negotiation.selection_options import SelectionOptions

QUERY_S = 5.0  # for the answers of nodes; a device of one process takes one
AGAIN_S = 20.0  # between two queries of a node, whose power and network may change
POLL_S = 0.1
EVERY_DEVICE = SelectionOptions()


class NegotiatedGrid(GridDecorator):
    """Wraps a Grid.

    Args:
        query: Nodes are asked what they are though nothing depends on it.

    Attributes:
        nodes: What is known of each node.
        waiting: Ids of earlier messages whose replies are still wanted: none in synchronous rounds.
    """

    def __init__(
        self,
        inner: Grid,
        options: CompressionOptions,
        selection: SelectionOptions = EVERY_DEVICE,
        *,
        query: bool = False,
    ) -> None:
        super().__init__(inner)
        self.options, self.selection = options, selection
        self.asks = query or options.upload is not Codec.NONE or selection.demands
        self.nodes: dict[int, NodeClass] = {}
        self.waiting: Container[str] = ()
        self._queries: dict[int, str] = {}  # the newest of each node that has not answered it, by node
        self._asked: dict[int, float] = {}  # when
        self._whole: dict[str, Message] = {}  # what the strategy wanted to send
        self._again: dict[str, str] = {}  # id of a message that was sent again: id of the first one

    def get_node_ids(self) -> Iterable[int]:
        nodes = list(self.inner.get_node_ids())
        if not self.selection.demands:
            return nodes
        self.query({node for node in nodes if time.monotonic() - self._asked.get(node, -AGAIN_S) >= AGAIN_S})
        return [node for node in nodes if self.selection.allows(self.nodes[node].facts)]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        whole = list(messages)
        if self.asks:
            self.query({message.metadata.dst_node_id for message in whole} - set(self.nodes))
        ids = list(self.inner.push_messages([self._for_its_node(message) for message in whole]))
        wanted = {id: message for id, message in self._whole.items() if id in self.waiting}
        self._whole = {**wanted, **dict(zip(ids, whole, strict=True))}
        self._again = {id: first for id, first in self._again.items() if first in self.waiting}
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        asked = list(message_ids)
        again = [id for id, first in self._again.items() if first in asked]
        return [reply for reply in self.inner.pull_messages([*asked, *again]) if not self._sends_again(reply)]

    def forget(self, id: str) -> None:
        """Keep a message no longer for the case that its node lacks the model; its answer can still be pulled."""
        self._whole.pop(id, None)

    def query(self, nodes: set[int]) -> None:
        """Ask these what they are, and wait for their answers for a limited time; one that is late counts as before.

        A node that has not answered its last query is asked, and not waited for. Its answer counts when it comes.
        """
        awaited = nodes - set(self._queries)
        asked = [Message(RecordDict(), dst_node_id=node, message_type="query") for node in sorted(nodes)]
        self.nodes.update({node: NodeClass() for node in nodes - set(self.nodes)})
        self._asked.update(dict.fromkeys(nodes, time.monotonic()))
        if asked:
            self._queries.update(zip(sorted(nodes), self.inner.push_messages(asked), strict=True))
        deadline = time.monotonic() + QUERY_S
        while self._queries:
            open_queries = {id: node for node, id in self._queries.items()}
            for reply in self.inner.pull_messages(list(open_queries)):
                node = open_queries.get(reply.metadata.reply_to_message_id)
                if node is not None:
                    self._queries.pop(node, None)
                    self.nodes[node] = node_class(reply)
            if awaited.isdisjoint(self._queries) or time.monotonic() > deadline:
                return
            time.sleep(POLL_S)

    def _for_its_node(self, message: Message) -> Message:
        config = _config(message)
        known = self.nodes.get(message.metadata.dst_node_id, NodeClass())
        dropped = {"model"} if config.get("sha256") in known.models else set()
        if known.codecs is not None and config.get(COMPRESSION) not in known.codecs:
            dropped.add(COMPRESSION)
        return _without(message, dropped & set(config))

    def _sends_again(self, reply: Message) -> bool:
        """Whether the reply says that the model is missing that was left out; then the message goes out with it."""
        metadata = reply.metadata
        first = self._again.get(metadata.reply_to_message_id, metadata.reply_to_message_id)
        whole = self._whole.get(first)
        if whole is None or not reply.has_content():
            metadata.__dict__["_reply_to_message_id"] = first  # whoever asked knows that id alone
            return False
        node, sha256 = whole.metadata.dst_node_id, _config(whole).get("sha256")
        known = self.nodes.setdefault(node, NodeClass())
        failed = reply.content.config_records.get(ERROR)
        if failed is None:
            known.models.add(str(sha256))
        elif first == metadata.reply_to_message_id and sha256 in known.models and failed.get(LACKS) == sha256:
            known.models.discard(str(sha256))
            (id,) = self.inner.push_messages([self._for_its_node(whole)])
            self._again[id] = first
            return True
        metadata.__dict__["_reply_to_message_id"] = first
        return False


def _config(message: Message) -> dict[str, Any]:
    return dict(message.content.config_records.get("config") or {})


def _without(message: Message, keys: set[str]) -> Message:
    """The same message without some keys of `config`; the records that do not change are shared."""
    if not keys:
        return message
    config = ConfigRecord({key: value for key, value in _config(message).items() if key not in keys})
    metadata = message.metadata
    return Message(
        RecordDict({**message.content, "config": config}),
        dst_node_id=metadata.dst_node_id,
        message_type=metadata.message_type,
        group_id=metadata.group_id,
        ttl=metadata.ttl,
    )
