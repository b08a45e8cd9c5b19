"""A float32 .tflite in; the same function in operators that the quantizers have integer rules for out."""

from __future__ import annotations

from functools import lru_cache

from edgeloop.convert.forms.flatbuffer_tree import read_tree, write_tree
from edgeloop.convert.forms.graph_edit import edits, without_unused_codes
from edgeloop.convert.forms.pooling import pools_as_means
from edgeloop.convert.forms.rewrite_arithmetic import affine, biases, products
from edgeloop.convert.forms.rewrite_shapes import constant_shapes
from edgeloop.convert.forms.rewrite_softplus import softplus
from edgeloop.convert.forms.stated_ranges import without_rounding
from edgeloop.files.flatbuffer import read_tflite

RULES = (without_rounding, pools_as_means, constant_shapes, products, softplus, biases, affine)
# a file without any of them is left as it is, unread
ASKED_FOR = frozenset(
    {"AVERAGE_POOL_2D", "EXPAND_DIMS", "SQUEEZE", "SHAPE", "NEG", "SQUARE", "MUL", "ADD", "ROUND", "LOG"}
)


@lru_cache(maxsize=2)  # calibrated and then quantized into several schemes
def for_integers(float32: bytes) -> bytes:
    """`float32` itself where no rule applies. Tensors that stay keep their names, and operators their order.

    Raises:
        ModelError: The flatbuffer is damaged.
    """
    if not ASKED_FOR & {op.name for graph in read_tflite(float32).graphs for op in graph.operators}:
        return float32
    tree, changed = read_tree(float32), False
    for edit in edits(tree):
        for rule in RULES:
            rule(edit)
        changed = edit.tidied() or changed
    return write_tree(without_unused_codes(tree)) if changed else float32
