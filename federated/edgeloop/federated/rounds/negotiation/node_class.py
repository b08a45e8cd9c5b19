"""What a node answered to `query`, as far as the server acts on it. It may come from a device that is hostile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flwr.app import Message

from edgeloop.federated.device.compression.codec import CODECS
from edgeloop.federated.rounds.negotiation.nodes_file import Facts

MODELS = 16  # hashes that are believed of one node
LETTERS = 64  # of a word that is
WORDS, FLAGS = ("machine", "runtime"), ("battery", "on-battery", "metered")
LARGEST = {"cores": 1 << 16, "ram-bytes": 1 << 50}


@dataclass
class NodeClass:
    """One node.

    Attributes:
        codecs: The codecs that it can send; None: it has not said.
        models: Hashes of models that it holds.
        facts: What it says of its machine, as far as that can be true: machine, runtime, cores, ram-bytes, battery,
            on-battery, metered.
        device: Its label; empty: it has not said.
    """

    codecs: frozenset[str] | None = None
    models: set[str] = field(default_factory=set)
    facts: Facts = field(default_factory=dict)
    device: str = ""


def node_class(reply: Message) -> NodeClass:
    """What the reply says; nothing where the query failed."""
    record = reply.content.config_records.get("device") if reply.has_content() else None
    if record is None:
        return NodeClass()
    codecs, models = _texts(record.get("codecs")), _texts(record.get("models"))
    said = record.get("device")
    label = said if isinstance(said, str) else ""
    return NodeClass(frozenset(codecs) & frozenset(CODECS), set(models[:MODELS]), _facts(record), label)


def _facts(record: Mapping[str, object]) -> dict[str, str | int | bool]:
    found: dict[str, str | int | bool] = {}
    for key in WORDS:
        word = record.get(key)
        if isinstance(word, str) and 0 < len(word) <= LETTERS and word.isprintable():
            found[key] = word
    for key, largest in LARGEST.items():
        number = record.get(key)
        if type(number) is int and 0 < number <= largest:
            found[key] = number
    for key in FLAGS:
        flag = record.get(key)
        if isinstance(flag, bool):
            found[key] = flag
    return found


def _texts(found: object) -> list[str]:
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []
