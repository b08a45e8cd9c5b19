"""Constant tables from numbers to numbers, as operations that every format has; a table itself is in none of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from edgeloop.convert.forms.node_functions import write_as
from edgeloop.extras import need

FIND = ("LookupTableFindV2", "LookupTableFind")
CHANGE = ("LookupTableInsert", "LookupTableImport", "LookupTableRemove")


def table_handles(traced: Any) -> dict[str, Any]:
    """Handles of what a function captures, by the names of their placeholders, if it looks values up in a table.

    None if it writes into one too, which is state.
    """
    tf = need("tensorflow", extra="convert")
    graph = traced.graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    if not any(node.op in FIND for node in nodes) or any(node.op.startswith(CHANGE) for node in nodes):
        return {}
    pairs = traced.graph.captures
    return {placeholder.name.split(":")[0]: handle for handle, placeholder in pairs if handle.dtype == tf.resource}


def replace_tables(graph: Any, handles: Mapping[str, Any]) -> None:
    """Write what is found in these tables as arithmetic, in place. A table of words, or one in a loop's body, stays."""
    tf = need("tensorflow", extra="convert")
    nodes = {node.name: node for node in graph.node}
    for node in [node for node in graph.node if node.op in FIND]:
        table = nodes[node.input[0].split(":")[0]]
        while table.op == "Identity":
            table = nodes[table.input[0].split(":")[0]]
        kinds = [node.attr[key].type for key in ("Tin", "Tout")]
        if table.name not in handles or not all(_is_number(tf.as_dtype(kind)) for kind in kinds):
            continue
        # with the types that the table has: others end the process
        content = tf.raw_ops.LookupTableExportV2(table_handle=handles[table.name], Tkeys=kinds[0], Tvalues=kinds[1])
        keys, values = (part.numpy() for part in content)
        order = np.argsort(keys, kind="stable")
        inputs = list(zip(node.input[1:3], kinds, strict=True))
        write_as(graph, node, partial(_find, known=keys[order], values=values[order]), inputs)


def has_table(graph: Any) -> bool:
    nodes = (*graph.node, *(node for function in graph.library.function for node in function.node_def))
    return any(node.op in FIND for node in nodes)


def _is_number(kind: Any) -> bool:
    return bool(kind.is_integer or kind.is_floating or kind.is_bool)


def _find(tf: Any, keys: Any, default: Any, *, known: np.ndarray, values: np.ndarray) -> Any:
    """The value of each key, or `default`; `known` [n] are the table's keys in order, `values` [n] what they map to."""
    size = len(known)
    if size == 0:
        return tf.zeros_like(keys, default.dtype) + default
    if np.array_equal(known, np.arange(known[0], known[0] + size)):
        place = keys - known[0]  # keys that count: no need to compare with each of them
    else:
        place = tf.reduce_sum(tf.cast(tf.expand_dims(keys, -1) >= known, tf.int32), -1) - 1
    place = tf.cast(tf.clip_by_value(place, 0, size - 1), tf.int32)
    return tf.where(tf.gather(known, place) == keys, tf.gather(values, place), default)
