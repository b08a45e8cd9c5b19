"""Ranges measured on a float32 .tflite in; the same without values that no answer depends on out.

What is below zero after an ADD with a ReLU is lost. With inputs a and b, any a below -max(b) gives that, so a range of
a from -max(b) upwards answers the same, but for rounding, with finer steps; under a ReLU6, one up to 6 - min(b) too.

Measured on MLPerf Tiny's ResNet8 in int8, where an input of each of three sums went from -11, -15 and -36 (in one
calibration) and goes from -11, -5 and -6: mean of three calibrations (500 crops, half of them box averages) times five
sets of crops, without and with it. SNR of the logits 28.66 and 28.87 dB (0.15 to 0.33 in each calibration), of the
probabilities 22.19 and 22.44 dB; agreement of the largest 95.51 and 95.58% (+0.38, -0.20, +0.02 points: noise).
int16x8 has steps enough: 0.00 dB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgeloop.convert.forms.weighted import read
from edgeloop.extras import need

Ranges = Mapping[str, Mapping[str, np.ndarray]]


def useful(float32: bytes, ranges: Ranges) -> dict[str, Mapping[str, np.ndarray]]:
    """`ranges`, narrower for each input of an ADD with a ReLU or ReLU6 that nothing else reads.

    The inputs and outputs of the model keep theirs: programs on devices fill and read them.

    Args:
        ranges: Smallest and largest value by tensor name: {"min": [1], "max": [1]}, float32.
    """
    model, graph = read(float32)
    operators = [graph.Operators(i) for i in range(graph.OperatorsLength())]
    readers: dict[int, list[Any]] = {}
    for op in operators:
        for i in op.InputsAsNumpy():
            readers.setdefault(int(i), []).append(op)
    ends = {*graph.InputsAsNumpy().tolist(), *graph.OutputsAsNumpy().tolist()}
    found = dict(ranges)
    for add, most in _cut_sums(model, operators, readers, ends):
        a, b = add.InputsAsNumpy().tolist()
        for i, other in ((a, b), (b, a)):
            name, beside = (graph.Tensors(k).Name().decode() for k in (i, other))
            if i not in ends and len(readers[i]) == 1 and name in ranges and beside in ranges:
                # by the other's measured range, not its narrowed one: both may be narrowed at once
                found[name] = _within(ranges[name], -ranges[beside]["max"], most - ranges[beside]["min"])
    return found


def _within(measured: Mapping[str, np.ndarray], low: np.ndarray, high: np.ndarray) -> dict[str, np.ndarray]:
    """The range from `low` to `high`, but nowhere wider than measured."""
    return {end: np.clip(bound, measured["min"], measured["max"]) for end, bound in (("min", low), ("max", high))}


def _cut_sums(
    model: Any, operators: list[Any], readers: Mapping[int, list[Any]], ends: set[int]
) -> Iterator[tuple[Any, np.float32]]:
    """Each ADD with a ReLU of its own, or with one as its output's only reader, and the most this lets through."""
    schema = need("ai_edge_litert.schema_py_generated", extra="convert")
    kinds, fused = schema.BuiltinOperator, schema.ActivationFunctionType
    own = {fused.RELU: np.float32(np.inf), fused.RELU6: np.float32(6)}
    behind = {kinds.RELU: np.float32(np.inf), kinds.RELU6: np.float32(6)}
    for op in operators:
        if _kind(model, op) != kinds.ADD:
            continue
        options, table = schema.AddOptions(), op.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        activation, out = options.FusedActivationFunction(), op.Outputs(0)
        next_ = readers.get(out, [])
        if activation in own:
            yield op, own[activation]
        elif activation == fused.NONE and out not in ends and len(next_) == 1 and _kind(model, next_[0]) in behind:
            yield op, behind[_kind(model, next_[0])]


def _kind(model: Any, op: Any) -> int:
    code = model.OperatorCodes(op.OpcodeIndex())
    return int(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))
