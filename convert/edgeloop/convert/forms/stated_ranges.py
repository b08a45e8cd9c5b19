"""A float32 .tflite that rounds some values to 8 bits (of a QDQ model), without that; and the ranges that it states.

Such a model clips a value and rounds it to the steps of a scale: MAXIMUM, MINIMUM, MUL, ROUND, MUL. int8 with the same
scale rounds so by itself: it is made of the net without these, with their ranges instead of measured ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.convert.forms.flatbuffer_tree import read_tree
from edgeloop.convert.forms.graph_edit import GraphEdit, edits
from edgeloop.files.flatbuffer import read_tflite

STEPS = 255  # between the limits of 8 bits
CLIPS = {"RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0), "RELU_0_TO_1": (0.0, 1.0)}  # MAXIMUM and MINIMUM in one
MOVERS = frozenset({"RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS"})  # int8 gives both sides of these one scale
WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})


@dataclass(frozen=True, slots=True)
class Rounding:
    """A value that is rounded to 8 bits.

    Attributes:
        real: The tensor before it is clipped and rounded.
        low, high: The limits.
        factor: Steps in one.
        op: The ROUND; `scaled` is its input.
    """

    real: int
    low: float
    high: float
    factor: float
    op: Any
    scaled: int


def without_rounding(edit: GraphEdit) -> None:
    """Whoever reads a rounded value reads the value before; the converter may have put the step into weights."""
    for found in roundings(edit):  # each is looked up when the one before is gone
        counted = int(found.op.outputs[0])
        for reader in edit.readers(counted):
            if _constant_factor(edit, reader, counted) is not None:
                _read_before(edit, reader, found.real)
            elif edit.kind(reader) in WEIGHTED and edit.constant(reader.inputs[1]) is not None:
                _scale_weights(edit, reader, found)
            else:
                edit.read_instead(reader, counted, found.scaled)


def stated_ranges(float32: bytes) -> dict[str, dict[str, np.ndarray]]:
    """Smallest and largest value by tensor name, as `Calibration.ranges`, of what is rounded to 8 bits."""
    if not any(op.name == "ROUND" for graph in read_tflite(float32).graphs for op in graph.operators):
        return {}
    stated: dict[str, dict[str, np.ndarray]] = {}
    for edit in edits(read_tree(float32)):
        for found in roundings(edit):
            factors = dict.fromkeys([*_moved(edit, found.real), *_ends(edit, found)], 1.0)
            for tensor, factor in {**factors, found.scaled: found.factor}.items():
                limits = {"min": found.low * factor, "max": found.high * factor}
                stated[edit.tensor(tensor).name.decode()] = {k: np.array([v], np.float32) for k, v in limits.items()}
    return stated


def roundings(edit: GraphEdit) -> Iterator[Rounding]:
    """Every ROUND of a clipped value whose limits are 255 steps apart."""
    for op in edit.operators("ROUND"):
        scaled = int(op.inputs[0])
        times = edit.maker(scaled)
        factor = None if times is None else _constant_factor(edit, times, None)
        if times is None or factor is None or factor <= 0:
            continue
        clipped = next(int(i) for i in times.inputs if edit.constant(i) is None)
        limits = _limits(edit, clipped)
        if limits is not None and abs((limits[2] - limits[1]) * factor - STEPS) < 0.01:
            yield Rounding(*limits, factor, op, scaled)


def _constant_factor(edit: GraphEdit, op: Any, computed: int | None) -> float | None:
    """The one number that a MUL multiplies by, where its other input is computed."""
    return _constant_of("MUL", edit, op, computed)


def _constant_of(kind: str, edit: GraphEdit, op: Any, computed: int | None = None) -> float | None:
    if op is None or edit.kind(op) != kind or not edit.is_float(op.outputs[0]):
        return None
    if kind == "MUL" and edit.activation(op):
        return None
    values = [edit.constant(i) for i in op.inputs]
    if computed is not None and computed not in op.inputs:
        return None
    known = [v for v in values if v is not None and v.size == 1]
    return float(known[0].item()) if len(known) == 1 and sum(v is None for v in values) == 1 else None


def _limits(edit: GraphEdit, clipped: int) -> tuple[int, float, float] | None:
    """The tensor that is clipped, and its limits. Clipped at 0 it may come from an operator with a ReLU of its own."""
    maker = edit.maker(clipped)
    if maker is not None and edit.kind(maker) in CLIPS:
        return (clipped, *CLIPS[edit.kind(maker)])
    high = _constant_of("MINIMUM", edit, maker)
    if maker is None or high is None:
        return None
    below = next(int(i) for i in maker.inputs if edit.constant(i) is None)
    before = edit.maker(below)
    low = _constant_of("MAXIMUM", edit, before)
    if before is None or low is None:
        return below, 0.0, high
    return next(int(i) for i in before.inputs if edit.constant(i) is None), low, high


def _read_before(edit: GraphEdit, back: Any, real: int) -> None:
    """Let the readers of what `back` makes read `real`; an output of the graph is made by the operator before."""
    rounded = int(back.outputs[0])
    if not edit.is_output(rounded):
        for op in edit.readers(rounded):
            edit.read_instead(op, rounded, real)
        edit.remove(back)
        return
    maker = edit.maker(real)
    if maker is None or edit.is_output(real):
        return
    maker.outputs = [rounded if i == real else i for i in maker.outputs]
    for op in edit.readers(real):
        edit.read_instead(op, real, rounded)
    edit.remove(back)


def _scale_weights(edit: GraphEdit, op: Any, found: Rounding) -> None:
    """Take the step out of the weights of an operator that reads whole steps."""
    weights = edit.constant(op.inputs[1])
    assert weights is not None
    name = edit.tensor(op.inputs[1]).name + b"/steps"
    scaled = edit.add_constant((weights * np.float32(found.factor)).astype(np.float32), name)
    op.inputs = [found.real, scaled, *op.inputs[2:]]
    edit.changed = True


def _moved(edit: GraphEdit, tensor: int) -> list[int]:
    """A tensor, and those that it is a rearrangement of."""
    chain = [tensor]
    while (maker := edit.maker(chain[-1])) is not None and edit.kind(maker) in MOVERS:
        chain.append(int(maker.inputs[0]))
    return chain


def _ends(edit: GraphEdit, found: Rounding) -> list[int]:
    """What the rounded value is called where the graph gives it out."""
    counted = int(found.op.outputs[0])
    backs = [op for op in edit.readers(counted) if _constant_factor(edit, op, counted) is not None]
    return [int(op.outputs[0]) for op in backs if edit.is_output(int(op.outputs[0]))]
