"""A .tflite as the schema's own tree of objects, to be changed, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeloop.extras import need


def read_tree(data: bytes) -> Any:
    """The schema's ModelT, with weights that lie behind the flatbuffer brought inside.

    Raises:
        Exception: Of flatbuffers' many, for damaged offsets; look at the bytes first (`edge.flatbuffer`).
    """
    tree = need("ai_edge_litert.tools.flatbuffer_utils", extra="edge").read_model_from_bytearray(bytearray(data))
    for buffer in tree.buffers:
        if isinstance(buffer.data, bytearray):  # from behind; packed byte by byte unless it is an array: 16 s for 14 MB
            buffer.data = np.frombuffer(buffer.data, np.uint8)
    return tree


def write_tree(tree: Any) -> bytes:
    """The flatbuffer of a tree."""
    return bytes(need("ai_edge_litert.tools.flatbuffer_utils", extra="edge").convert_object_to_bytearray(tree))


def clear_unused(tree: Any) -> None:
    """Empty the buffers that no tensor of any graph and no metadata names; positions stay."""
    used = {0, *(t.buffer for g in tree.subgraphs for t in g.tensors), *(entry.buffer for entry in tree.metadata or ())}
    for i, buffer in enumerate(tree.buffers):
        if i not in used:
            buffer.data = None
