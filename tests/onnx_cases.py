"""Many small ONNX operators in one model, so that one conversion tests them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx_models import make_model


@dataclass(frozen=True)
class Weight:
    """An input that is a constant of the model."""

    array: np.ndarray


@dataclass(frozen=True)
class Sized:
    """An input whose last axes have a fixed size, as many as `fixed`."""

    array: np.ndarray
    fixed: int = 1


@dataclass(frozen=True)
class Case:
    """One node. An array is an input of the model whose dimensions are free, except the last one
    of whole numbers (a shape of free length, say, would leave the rank open); None is an input that is left out."""

    op: str
    inputs: Sequence[np.ndarray | Sized | Weight | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1


def together(cases: Sequence[Case], opset: int = 22) -> tuple[Any, dict[str, np.ndarray]]:
    """A model of these nodes side by side, and what to feed it."""
    import onnx

    nodes, feeds, weights, inputs, outputs = [], {}, {}, {}, {}
    for i, case in enumerate(cases):
        names = []
        for k, given in enumerate(case.inputs):
            name = f"{case.op}_{i}_{k}"
            names.append("" if given is None else name)
            if isinstance(given, Weight):
                weights[name] = np.asarray(given.array)
            elif given is not None:
                fixed = given.fixed if isinstance(given, Sized) else 0
                feeds[name] = np.asarray(given.array if isinstance(given, Sized) else given)
                kind = onnx.helper.np_dtype_to_tensor_dtype(feeds[name].dtype)
                dims: list[int | str] = [f"{name}_{axis}" for axis in range(feeds[name].ndim)]
                fixed = 1 if kind == onnx.TensorProto.INT64 else fixed
                inputs[name] = (dims[: len(dims) - fixed] + list(feeds[name].shape)[len(dims) - fixed :], kind)
        made = [f"{case.op}_{i}_out_{k}" for k in range(case.outputs)]
        nodes.append(onnx.helper.make_node(case.op, names, made, name=f"{case.op}_{i}", **case.attributes))
        outputs.update(dict.fromkeys(made))
    return make_model(nodes, inputs, outputs, weights, opset), feeds
