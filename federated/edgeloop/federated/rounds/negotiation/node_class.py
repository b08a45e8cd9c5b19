"""What a node answered to `query`, as far as the server acts on it. It may come from a device that is hostile."""

from __future__ import annotations

from dataclasses import dataclass, field

from flwr.app import Message

from edgeloop.federated.device.compression.codec import CODECS

MODELS = 16  # hashes that are believed of one node


@dataclass
class NodeClass:
    """One node.

    Attributes:
        codecs: The codecs that it can send; None: it has not said.
        models: Hashes of models that it holds.
    """

    codecs: frozenset[str] | None = None
    models: set[str] = field(default_factory=set)


def node_class(reply: Message) -> NodeClass:
    """What the reply says; nothing where the query failed."""
    record = reply.content.config_records.get("device") if reply.has_content() else None
    if record is None:
        return NodeClass()
    codecs, models = _texts(record.get("codecs")), _texts(record.get("models"))
    return NodeClass(frozenset(codecs) & frozenset(CODECS), set(models[:MODELS]))


def _texts(found: object) -> list[str]:
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []
