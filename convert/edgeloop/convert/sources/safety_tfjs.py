"""A TF.js model: where its weights lie, sizes, weights that are no numbers, operations and layers that are code."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeloop.convert.sources.finite import refuse_not_finite
from edgeloop.convert.sources.forbidden_ops import RESTORING, SAVING, forbidden
from edgeloop.convert.sources.identify import LIMIT_BYTES
from edgeloop.convert.sources.tfjs_files import UNTRUSTED, nodes, read_model, read_weights
from edgeloop.errors import ModelError
from edgeloop.files.keras_config import code_in

LARGEST_ITEM_BYTES = 16


def scan_tfjs(path: Path) -> list[str]:
    """What in a model runs code or touches files when it is loaded or called: half a sentence each.

    Raises:
        ModelError: Weights outside its folder, over 2 GB, NaN, or constants of such a size.
        ValueError: No TF.js model, or weight files that do not fit it.
    """
    model = read_model(path)
    weights = read_weights(path, model)
    topology = model["modelTopology"]
    constants = {node.get("name") for node in nodes(topology) if node["op"] == "Const"}
    for name, values in weights.items():
        if values.dtype.kind == "f":
            refuse_not_finite(path, name, values, constant=name in constants)
    found = [f"has {what}" for what in code_in(topology)]
    for node in nodes(topology):
        op, name = node["op"], str(node.get("name"))
        if op == "Const" and name not in weights:
            _check_constant(path, name, node)
        what = forbidden(op, _texts(node)) or ("touches files" if op in SAVING | RESTORING else None)
        if what:
            found.append(f"has the operation {op} in its graph, as {name!r}, which {what}")
    return list(dict.fromkeys(found))


def _texts(node: Mapping[str, Any]) -> dict[str, str]:
    """The text attributes of a node: base64 in JSON, where protobuf reads - and _ as + and /."""
    attributes = node.get("attr") or {}
    texts = {name: value.get("s") for name, value in attributes.items() if isinstance(value, dict)}
    return {
        name: base64.urlsafe_b64decode(s).decode("utf-8", "replace") for name, s in texts.items() if isinstance(s, str)
    }


def _check_constant(path: Path, name: str, node: Mapping[str, Any]) -> None:
    """One that the graph itself holds: a short list of values may claim any shape."""
    tensor = ((node.get("attr") or {}).get("value") or {}).get("tensor") or {}
    shape = tensor.get("tensorShape") or tensor.get("tensor_shape") or {}
    sizes = [int(dim.get("size", 0)) for dim in shape.get("dim") or []]
    if any(n < 0 for n in sizes) or math.prod(sizes) * LARGEST_ITEM_BYTES > LIMIT_BYTES:
        raise ModelError(f"{path}: the constant {name!r} has the shape {sizes}", advice=UNTRUSTED)
