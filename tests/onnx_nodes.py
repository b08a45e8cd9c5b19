"""Many nodes in one model: a conversion takes longer than what it converts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx_models import check, make_model


def check_nodes(
    nodes: Sequence[Any],
    feeds: Mapping[str, np.ndarray],
    constants: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
    free: Mapping[str, Sequence[int]] | None = None,
    expected: Sequence[np.ndarray] | None = None,
    outputs: Sequence[str] | None = None,
    tolerance: float = 1e-4,
) -> bytes:
    """Every output of every node (or those in `outputs`) is what ONNX Runtime computes, or what is `expected`.

    Args:
        free: For an input, which of its dimensions are free.
    """
    import onnx

    inputs = {}
    for name, array in feeds.items():
        free_axes = (free or {}).get(name, ())
        shape = [f"{name}_{i}" if i in free_axes else d for i, d in enumerate(array.shape)]
        inputs[name] = (shape, onnx.helper.np_dtype_to_tensor_dtype(array.dtype))
    names = outputs if outputs is not None else [name for node in nodes for name in node.output if name]
    model = make_model(nodes, inputs, dict.fromkeys(names), constants, opset)
    return check(model, feeds, expected=expected, tolerance=tolerance)


def operators(data: bytes) -> list[str]:
    """The names of a .tflite's operators, in their order."""
    from edgeloop.files.flatbuffer import read_tflite

    return [op.name for graph in read_tflite(data).graphs for op in graph.operators]
