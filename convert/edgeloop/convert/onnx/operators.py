"""Every operator that can be imported: ONNX's name of it, to the function that does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeloop.convert.onnx.ops import (
    activations,
    arithmetic,
    attention,
    axes,
    branches,
    comparison,
    contributed,
    contributed_quantized,
    convolution,
    determinant,
    einsum,
    elementwise,
    generating,
    indexing,
    joining,
    loop,
    matmul,
    normalization,
    padding,
    pooling,
    quantized,
    recurrent,
    reductions,
    regions,
    reshape,
    resize,
    sampling,
    scan,
    scattering,
    selection,
    sequences,
    signal,
    slicing,
    softmax,
    suppression,
    unpooling,
)

TABLES = (
    activations,
    arithmetic,
    attention,
    axes,
    branches,
    comparison,
    contributed,
    contributed_quantized,
    convolution,
    determinant,
    einsum,
    elementwise,
    generating,
    indexing,
    joining,
    loop,
    matmul,
    normalization,
    padding,
    pooling,
    quantized,
    recurrent,
    reductions,
    regions,
    reshape,
    resize,
    sampling,
    scan,
    scattering,
    selection,
    sequences,
    signal,
    slicing,
    softmax,
    suppression,
    unpooling,
)
OPS: dict[str, Callable[..., Any]] = {name: function for table in TABLES for name, function in table.OPS.items()}
OPS.update({name: quantized.carried(OPS[name]) for name in quantized.CARRIED})

# their result is one sequence (a list of values), not several outputs
MAKE_SEQUENCE = frozenset({"SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SplitToSequence"})
