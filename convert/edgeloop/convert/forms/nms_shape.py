"""A fused non-maximum suppression in a .tflite, with the axis that the TFLite converter loses.

`tf.image.non_max_suppression_padded` computes indices [1, n]. Fused into NON_MAX_SUPPRESSION_V4 they are [n], and
TensorFlow 2.21's converter leaves the declared shape at [1, n]: a runtime then gives [n] where [1, n] was said.
"""

from __future__ import annotations

import numpy as np

from edgeloop.convert.forms.flatbuffer_tree import read_tree, write_tree
from edgeloop.convert.forms.graph_edit import edits

OPERATORS = ("NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5")


def with_batch_axis(data: bytes) -> bytes:
    """The file with a RESHAPE from [n] to [1, n] after each non-maximum suppression that declares [1, n]."""
    tree = read_tree(data)
    for edit in edits(tree):
        for op in edit.operators(*OPERATORS):
            for place, index in enumerate(op.outputs):
                shape, declared = edit.shape(index), edit.tensor(index)
                if len(shape) != 2 or shape[0] != 1:
                    continue
                flat = edit.add_like(index, declared.type, declared.name + b"/flat")
                edit.tensor(flat).shape, edit.tensor(flat).shapeSignature = shape[1:], None
                op.outputs = [*op.outputs[:place], flat, *op.outputs[place + 1 :]]
                wanted = edit.add_constant(np.array(shape, np.int32), declared.name + b"/shape")
                edit.insert("RESHAPE", [flat, wanted], index, after=op)
    return write_tree(tree)
