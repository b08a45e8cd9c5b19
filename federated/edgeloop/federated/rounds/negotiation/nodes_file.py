"""`nodes.json` in the folder of a run: {"format", "nodes": {node id: what it says of its machine}}."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

NODES = "nodes.json"
FORMAT = "edgeloop-nodes/1"
Facts: TypeAlias = Mapping[str, str | int | bool]


def nodes_bytes(nodes: Mapping[int, Facts]) -> bytes:
    """The content of nodes.json, by node id; a node that has said nothing is left out."""
    document = {str(node): dict(facts) for node, facts in sorted(nodes.items()) if facts}
    return json.dumps({"format": FORMAT, "nodes": document}, indent=1).encode() + b"\n"


def read_nodes(out: Path) -> dict[str, Facts]:
    """What nodes.json in the folder of a run says; empty: nobody was asked."""
    try:
        return dict(json.loads((out / NODES).read_bytes())["nodes"])
    except FileNotFoundError:
        return {}
