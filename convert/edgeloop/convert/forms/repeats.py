"""A graph in, the tensors that the steps of an unrolled loop compute alike, out.

An unrolled LSTM or GRU multiplies by the same weights at every step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgeloop.convert.forms.graph_edit import GraphEdit

PRODUCT = "FULLY_CONNECTED"
Readers = Mapping[int, Sequence[tuple[Any, int]]]  # of a tensor: operators, and its place among their inputs


def repeated(edit: GraphEdit) -> set[int]:
    """Products of several operators with the same weights, and what is computed of each by operators of one kind."""
    products: dict[int, list[int]] = defaultdict(list)
    for op in edit.operators(PRODUCT):
        if edit.constant(op.inputs[1]) is not None:
            products[int(op.inputs[1])].append(int(op.outputs[0]))
    waiting = [outputs for outputs in products.values() if len(outputs) > 1]
    if not waiting:
        return set()
    readers: dict[int, list[tuple[Any, int]]] = defaultdict(list)
    for op in edit.graph.operators:
        for place, tensor in enumerate(op.inputs):
            readers[int(tensor)].append((op, place))
    found: set[int] = set()
    while waiting:
        group = [tensor for tensor in waiting.pop() if tensor not in found]
        if len(group) > 1:
            found.update(group)
            waiting += _following(edit, readers, group)
    return found


def _following(edit: GraphEdit, readers: Readers, group: Sequence[int]) -> Iterator[list[int]]:
    """What operators of the same kind compute of these tensors, each at the same place among its inputs."""
    found: dict[tuple[str, int, int], list[int]] = defaultdict(list)
    for tensor in group:
        for op, place in readers.get(tensor, ()):
            if edit.kind(op) == PRODUCT:
                continue  # goes with its weights
            for slot, output in enumerate(op.outputs):
                if edit.is_float(output):
                    found[edit.kind(op), place, slot].append(int(output))
    return (outputs for outputs in found.values() if len(outputs) > 1)
