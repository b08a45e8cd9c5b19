"""A float32 .tflite and the ranges of its tensors in; masks before a Softmax just below the scores, not at -1e9, out.

In one range of 255 steps with -1e9, all scores would be equal. A score 8 below the least one has a share of 0.0003 at
most, less than half a step of an int8 Softmax. A causal attention in int8: 15.6 dB, 28.5 this way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeloop.convert.forms.flatbuffer_tree import read_tree, write_tree
from edgeloop.convert.forms.graph_edit import GraphEdit, edits
from edgeloop.files.flatbuffer import read_tflite

Ranges = Mapping[str, Mapping[str, np.ndarray]]

BELOW = 8.0  # natural logarithms
MASKS = 100.0  # a constant that much below the least score is a mask
CHOOSE, MOVE = ("SELECT", "SELECT_V2"), ("RESHAPE", "TRANSPOSE")


def with_near_masks(float32: bytes, ranges: Ranges) -> tuple[bytes, Ranges]:
    """Both themselves where there is no mask. One that is added as a constant, 0 or very low, is chosen (SELECT) then.

    Raises:
        ModelError: The flatbuffer is damaged.
    """
    found = {op.name for graph in read_tflite(float32).graphs for op in graph.operators}
    if "SOFTMAX" not in found or not found & {*CHOOSE, "ADD"}:
        return float32, ranges
    tree, nearer = read_tree(float32), dict(ranges)
    changed = [_nearer(edit, op, nearer) for edit in edits(tree) for op in edit.operators(*CHOOSE, "ADD")]
    return (write_tree(tree), nearer) if any(changed) else (float32, ranges)


def _nearer(edit: GraphEdit, op: Any, ranges: dict[str, Mapping[str, np.ndarray]]) -> bool:
    """Change one operator and the ranges behind it. Whether it was one."""
    behind = _up_to_softmax(edit, int(op.outputs[0]))
    given = [int(i) for i in op.inputs if edit.is_float(int(i))]
    scores = [i for i in given if edit.constant(i) is None and _span(edit, ranges, i) is not None]
    if not behind or len(given) != 2 or not scores:
        return False
    for at in scores:
        low, high = _span(edit, ranges, at) or (0.0, 0.0)
        other = given[1 - given.index(at)]
        value = edit.constant(other)
        if value is None:
            least = _factor(edit, op, other, low, high, ranges)
        elif edit.kind(op) == "ADD":
            least = _chosen(edit, op, at, other, value, low)
        else:
            least = _lifted(edit, op, other, value, low)
        if least is not None:
            for tensor in behind:
                _set(edit, ranges, tensor, least, high)
            return True
    return False


def _lifted(edit: GraphEdit, op: Any, other: int, value: np.ndarray, low: float) -> float | None:
    """SELECT(condition, scores, mask)"""
    if float(value.max()) > low - MASKS:
        return None
    near = np.full(value.shape, low - BELOW, np.float32)
    edit.read_instead(op, other, edit.add_constant(near, edit.tensor(op.outputs[0]).name + b"/near"))
    return low - BELOW


def _chosen(edit: GraphEdit, op: Any, scores: int, other: int, value: np.ndarray, low: float) -> float | None:
    """scores + mask, of a mask that is 0 where it does not mask: SELECT(condition, scores, mask)"""
    hidden = value < -MASKS
    if not hidden.any() or value[~hidden].any() or edit.activation(op):
        return None
    name = edit.tensor(op.outputs[0]).name
    near = edit.add_constant(np.array(low - BELOW, np.float32), name + b"/near")
    edit.become(op, "SELECT_V2", [edit.add_constant(~hidden, name + b"/seen"), scores, near])
    return low - BELOW


def _factor(
    edit: GraphEdit, op: Any, mask: int, low: float, high: float, ranges: dict[str, Mapping[str, np.ndarray]]
) -> float | None:
    """scores + hidden * factor, hidden between 0 and 1: the factor is as low as the scores are wide, and 8 more."""
    mul, span = edit.maker(mask), _span(edit, ranges, mask)
    if edit.kind(op) != "ADD" or mul is None or edit.kind(mul) != "MUL" or edit.activation(mul) or span is None:
        return None
    constants = [int(i) for i in mul.inputs if edit.constant(int(i)) is not None]
    if edit.only_reader(mask) is None or len(constants) != 1 or span[0] > -MASKS or span[1] > 0:
        return None
    value = edit.constant(constants[0])
    if value is None or float(value.max()) > -MASKS:
        return None
    near = low - high - BELOW
    name = edit.tensor(mask).name + b"/near"
    edit.read_instead(mul, constants[0], edit.add_constant(np.full(value.shape, near, np.float32), name))
    _set(edit, ranges, mask, near * span[0] / float(value.min()), 0.0)
    return low + near


def _up_to_softmax(edit: GraphEdit, tensor: int) -> list[int]:
    """The tensor, and those that only move its values, if a Softmax reads the last and nobody else any of them."""
    moved = [tensor]
    while (reader := edit.only_reader(moved[-1])) is not None:
        if edit.kind(reader) == "SOFTMAX":
            return moved
        if edit.kind(reader) not in MOVE:
            break
        moved.append(int(reader.outputs[0]))
    return []


def _span(edit: GraphEdit, ranges: Ranges, tensor: int) -> tuple[float, float] | None:
    both = ranges.get(edit.tensor(tensor).name.decode())
    return None if both is None else (float(np.min(both["min"])), float(np.max(both["max"])))


def _set(edit: GraphEdit, ranges: dict[str, Mapping[str, np.ndarray]], tensor: int, low: float, high: float) -> None:
    name = edit.tensor(tensor).name.decode()
    ranges[name] = {end: np.array([value], np.float32) for end, value in (("min", low), ("max", high))}
