"""Every global AVERAGE_POOL_2D as MEAN.

The integer AVERAGE_POOL_2D has one scale for its input and its output, and a mean over a whole image spans a fraction
of what it averages: on MLPerf Tiny's ResNet8, values up to 6.4 got the 256 steps of 26.1. MEAN has a scale of its own.
int8 against float32, 750 resized crops of three photographs, calibrated on two others: 19.4 dB without, 22.0 with it,
where weights are rounded as in `rounding` 20.1 and 23.8.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeloop.convert.forms.graph_edit import GraphEdit


def pools_as_means(edit: GraphEdit) -> None:
    """Where a pooling spans its whole input, whose size is fixed: one answer per image, of all of it."""
    for op in edit.operators("AVERAGE_POOL_2D"):
        if _spans_all(edit, op):
            axes = edit.add_constant(np.array([1, 2], np.int32), edit.tensor(op.outputs[0]).name + b"/axes")
            edit.become(op, "MEAN", [op.inputs[0], axes], edit.schema.ReducerOptionsT(keepDims=True), version=2)


def _spans_all(edit: GraphEdit, op: Any) -> bool:
    options = op.builtinOptions
    size, answer = edit.shape(op.inputs[0])[1:3], list(edit.tensor(op.outputs[0]).shape[1:3])
    return (
        -1 not in size
        and answer == [1, 1]
        and [options.filterHeight, options.filterWidth] == size
        and not options.fusedActivationFunction
    )
