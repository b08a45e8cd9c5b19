"""Every operator that can be imported: ONNX's name of it, to the function that does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeloop.convert.onnx.ops import (
    activations,
    arithmetic,
    axes,
    branches,
    comparison,
    convolution,
    einsum,
    elementwise,
    generating,
    indexing,
    joining,
    loop,
    matmul,
    padding,
    pooling,
    quantized,
    reductions,
    reshape,
    resize,
    scan,
    scattering,
    selection,
    sequences,
    slicing,
)

TABLES = (
    activations,
    arithmetic,
    axes,
    branches,
    comparison,
    convolution,
    einsum,
    elementwise,
    generating,
    indexing,
    joining,
    loop,
    matmul,
    padding,
    pooling,
    quantized,
    reductions,
    reshape,
    resize,
    scan,
    scattering,
    selection,
    sequences,
    slicing,
)
OPS: dict[str, Callable[..., Any]] = {name: function for table in TABLES for name, function in table.OPS.items()}

# their result is one sequence (a list of values), not several outputs
MAKE_SEQUENCE = frozenset({"SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SplitToSequence"})
