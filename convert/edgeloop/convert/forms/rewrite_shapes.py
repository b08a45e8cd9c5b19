"""Operators that only change a shape, as RESHAPE to a constant one, for which every quantizer has a rule.

Keras writes a Dense layer on a sequence as SHAPE, GATHER, REDUCE_PROD and PACK before a RESHAPE, and every 1-D layer
with EXPAND_DIMS and SQUEEZE around a 2-D one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeloop.convert.forms.graph_edit import GraphEdit

SHAPES = ("EXPAND_DIMS", "SQUEEZE", "RESHAPE")


def constant_shapes(edit: GraphEdit) -> None:
    """Every EXPAND_DIMS, SQUEEZE and computed RESHAPE whose result has no more than one free dimension."""
    for op in edit.operators(*SHAPES):
        computed = edit.kind(op) == "RESHAPE" and len(op.inputs) > 1 and edit.constant(op.inputs[1]) is None
        if not computed and edit.kind(op) == "RESHAPE":
            continue
        shape = _shape(edit, op.outputs[0]) if edit.has_free_shape(op.outputs[0]) or not computed else None
        if not shape or sum(d < 0 for d in shape) > 1 or 0 in shape:  # [] may be an unknown rank, too
            continue
        name = edit.tensor(op.outputs[0]).name + b"/shape"
        edit.become(op, "RESHAPE", [op.inputs[0], edit.add_constant(np.array(shape, np.int32), name)])


def _shape(edit: GraphEdit, tensor: int) -> Sequence[int]:
    """What is known of it: a matrix that only dense layers read has as many columns as their weights."""
    shape = edit.shape(tensor)
    readers = edit.readers(tensor)
    if len(shape) == 2 and shape[1] < 0 and readers and all(edit.kind(op) == "FULLY_CONNECTED" for op in readers):
        weights = [edit.shape(op.inputs[1]) for op in readers if op.inputs[0] == tensor]
        if weights and weights[0][1] > 0:
            shape = [shape[0], weights[0][1]]
            edit.tensor(tensor).shape = [1 if d < 0 else d for d in shape]
            edit.tensor(tensor).shapeSignature = shape
    return shape
