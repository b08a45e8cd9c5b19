"""A graph of a .tflite and the ranges of its tensors, with what adding operators to it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeloop.convert.forms.graph_edit import GraphEdit

# 16 bits have room for values beyond those of the samples. ResNet8 calibrated on one photograph, on plain crops of
# others: 19.8 dB without, 22.1 dB with it. int8 has no room: 1.1 cost it 1 dB on resized crops.
MARGIN = 4.0
LEAST = 1e-3  # of a range: LiteRT ends the process where a scale is 0


class Int16Graph:
    """`ranges` grows by what is added. They are multiplied by MARGIN before they reach the quantizers."""

    def __init__(self, edit: GraphEdit, ranges: dict[str, Mapping[str, np.ndarray]]) -> None:
        self.edit, self.ranges = edit, ranges

    def span(self, tensor: int) -> tuple[float, float] | None:
        both = self.ranges.get(self.edit.tensor(int(tensor)).name.decode())
        return None if both is None else (float(np.min(both["min"])), float(np.max(both["max"])))

    def set(self, tensor: int, low: float, high: float) -> None:
        name = self.edit.tensor(int(tensor)).name.decode()
        self.ranges[name] = {end: np.array([value], np.float32) for end, value in (("min", low), ("max", high))}

    def before(
        self, op: Any, kind: str, given: Sequence[int], span: tuple[float, float], name: str, fused: int = 0
    ) -> int:
        """A new operator before `op`; its output is in the shape of the output of `op`."""
        edit = self.edit
        made = {
            "ADD": lambda: self.sum(fused),
            "SUB": lambda: edit.schema.SubOptionsT(potScaleInt16=False),
            "MUL": edit.schema.MulOptionsT,
            "EXP": edit.schema.ExpOptionsT,
            "MINIMUM": edit.schema.MaximumMinimumOptionsT,
        }.get(kind)
        out = edit.before(op, kind, given, name, made() if made is not None else None)
        self.set(out, *span)
        return out

    def sum(self, fused: int = 0) -> Any:
        # by default only scales of powers of two, for which LiteRT checks by ending the process
        return self.edit.schema.AddOptionsT(fusedActivationFunction=fused, potScaleInt16=False)

    def number(self, value: float, op: Any) -> int:
        """A constant, named after the output of `op`."""
        name = self.edit.tensor(int(op.outputs[0])).name + f"/{value:.6g}".encode()
        return self.edit.add_constant(np.array(value, np.float32), name)

    def negative_part(self, op: Any, x: int, low: float) -> int:
        """min(x, 0)"""
        return self.before(op, "MINIMUM", [x, self.number(0.0, op)], (min(low, -LEAST), 0.0), "below")

    def factor(self, op: Any) -> float:
        """The number that a MUL multiplies by; 1 of another operator, 0 where there is none."""
        if self.edit.kind(op) != "MUL":
            return 1.0
        values = [self.edit.constant(int(i)) for i in op.inputs]
        found = [float(v.ravel()[0]) for v in values if v is not None and v.size == 1]
        return found[0] if len(found) == 1 else 0.0

    def computed(self, op: Any) -> int:
        """The first input that is no constant; -1 where there is none."""
        return next((int(i) for i in op.inputs if self.edit.constant(int(i)) is None), -1)
