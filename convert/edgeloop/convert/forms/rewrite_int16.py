"""A float32 .tflite and the ranges of its tensors in; what has no kernel for 16 bits in operators that have one, out.

int8 has kernels for all of these, and rounds a single time in them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeloop.convert.forms.flatbuffer_tree import read_tree, write_tree
from edgeloop.convert.forms.graph_edit import GraphEdit, edits, without_unused_codes
from edgeloop.convert.forms.masks import Ranges
from edgeloop.files.flatbuffer import read_tflite

ASKED_FOR = frozenset({"SQUARED_DIFFERENCE", "HARD_SWISH", "ELU", "SELECT_V2", "SELECT"})

LEAST = 1e-3  # of a range: LiteRT ends the process where a scale is 0


def for_int16(float32: bytes, ranges: Ranges) -> tuple[bytes, Ranges]:
    """Both themselves where no rule applies; with the ranges of what was added.

    Raises:
        ModelError: The flatbuffer is damaged.
    """
    if not ASKED_FOR & {op.name for graph in read_tflite(float32).graphs for op in graph.operators}:
        return float32, ranges
    tree = read_tree(float32)
    rewritten = [_Rewriting(edit, dict(ranges)) for edit in edits(tree)]
    found = dict(ranges)
    changed = False
    for one in rewritten:
        for rule in (one.squared_differences, one.hard_swishes, one.elus, one.selus):
            rule()
        found |= one.ranges
        changed = one.edit.tidied() or changed
    return (write_tree(without_unused_codes(tree)), found) if changed else (float32, ranges)


class _Rewriting:
    """One graph, and the ranges that are known of it."""

    def __init__(self, edit: GraphEdit, ranges: dict[str, Mapping[str, np.ndarray]]) -> None:
        self.edit, self.ranges = edit, ranges

    def squared_differences(self) -> None:
        """(a - b)^2 as a SUB and its square."""
        for op in self.edit.operators("SQUARED_DIFFERENCE"):
            span = self._span(op.outputs[0])
            if span is not None:
                most = max(math.sqrt(max(span[1], 0.0)), LEAST)
                difference = self._before(op, "SUB", list(op.inputs), op.outputs[0], (-most, most), "difference")
                self.edit.become(op, "MUL", [difference, difference], self.edit.schema.MulOptionsT())

    def hard_swishes(self) -> None:
        """x * ReLU6(x + 3) / 6"""
        for op in self.edit.operators("HARD_SWISH"):
            x, out = int(op.inputs[0]), int(op.outputs[0])
            activation = self.edit.schema.ActivationFunctionType.RELU6
            gate = self._before(op, "ADD", [x, self._number(3.0, out)], out, (0.0, 6.0), "gate", activation)
            share = self._before(op, "MUL", [gate, self._number(1 / 6, out)], out, (0.0, 1.0), "share")
            self.edit.become(op, "MUL", [x, share], self.edit.schema.MulOptionsT())

    def elus(self) -> None:
        """max(x, 0) + (exp(min(x, 0)) - 1)"""
        for op in self.edit.operators("ELU"):
            x, out = int(op.inputs[0]), int(op.outputs[0])
            span = self._span(x)
            if span is None:
                continue
            below = self._negative_part(op, x, span[0])
            power = self._before(op, "EXP", [below], out, (0.0, 1.0), "exp")
            less = self._before(op, "ADD", [power, self._number(-1.0, out)], out, (-1.0, 0.0), "less")
            above = self._before(op, "RELU", [x], out, (0.0, max(span[1], LEAST)), "above")
            self.edit.become(op, "ADD", [above, less], self._sum())

    def selus(self) -> None:
        """x > 0 ? x * a : (exp(x) - 1) * b, as max(x, 0) * a + (exp(min(x, 0)) - 1) * b"""
        for op in self.edit.operators("SELECT_V2", "SELECT"):
            found = self._selu(op)
            if found is None:
                continue
            x, scaled, power, chain = found
            low, high = self._span(x) or (0.0, 0.0)
            above = self._before(scaled, "RELU", [x], int(scaled.outputs[0]), (0.0, max(high, LEAST)), "above")
            self.edit.read_instead(scaled, x, above)
            self.edit.read_instead(power, x, self._negative_part(power, x, low))
            self._set(power.outputs[0], 0.0, 1.0)
            least, most = -1.0, 0.0
            for step in chain:  # SUB, then MUL: both keep the sign
                factor = self._factor(step)
                least *= factor
                self._set(step.outputs[0], min(least, most), max(least, most))
            self._set(scaled.outputs[0], *sorted((0.0, max(high, LEAST) * self._factor(scaled))))
            self.edit.become(op, "ADD", [scaled.outputs[0], chain[-1].outputs[0]], self._sum())

    def _selu(self, op: Any) -> tuple[int, Any, Any, list[Any]] | None:
        """(x, the MUL of its positive part, the EXP, what follows it)."""
        edit = self.edit
        compare, scaled, last = (edit.maker(int(i)) for i in op.inputs)
        if compare is None or scaled is None or last is None:
            return None
        x = int(compare.inputs[0])
        zero = edit.constant(int(compare.inputs[1]))
        if edit.kind(compare) not in ("GREATER", "GREATER_EQUAL") or zero is None or np.any(zero != 0):
            return None
        chain = [last]
        while edit.kind(chain[0]) == "MUL" and self._factor(chain[0]) and edit.maker(self._computed(chain[0])):
            chain.insert(0, edit.maker(self._computed(chain[0])))
        less = chain[0]
        power = edit.maker(self._computed(less)) if edit.kind(less) in ("SUB", "ADD") else None
        wanted = {"SUB": 1.0, "ADD": -1.0}.get(edit.kind(less))
        alone = all(edit.only_reader(int(step.outputs[0])) is not None for step in (*chain, scaled))
        if power is None or edit.kind(power) != "EXP" or int(power.inputs[0]) != x or not alone:
            return None
        constants = [edit.constant(int(i)) for i in less.inputs]
        value = next((c for c in constants if c is not None), None)
        if value is None or np.any(value != wanted) or edit.only_reader(int(power.outputs[0])) is None:
            return None
        fits = edit.kind(scaled) == "MUL" and self._computed(scaled) == x and self._factor(scaled)
        return (x, scaled, power, chain) if fits and self._span(x) is not None else None

    def _factor(self, op: Any) -> float:
        """The number that a MUL multiplies by; 1 of another operator, 0 where there is none."""
        if self.edit.kind(op) != "MUL":
            return 1.0
        values = [self.edit.constant(int(i)) for i in op.inputs]
        found = [float(v.ravel()[0]) for v in values if v is not None and v.size == 1]
        return found[0] if len(found) == 1 else 0.0

    def _computed(self, op: Any) -> int:
        return next((int(i) for i in op.inputs if self.edit.constant(int(i)) is None), -1)

    def _negative_part(self, op: Any, x: int, low: float) -> int:
        zero = self._number(0.0, int(op.outputs[0]))
        return self._before(op, "MINIMUM", [x, zero], int(op.outputs[0]), (min(low, -LEAST), 0.0), "below")

    def _before(
        self, op: Any, kind: str, given: list[int], like: int, span: tuple[float, float], name: str, fused: int = 0
    ) -> int:
        """A new operator before `op`; its output is in the shape of `like`."""
        edit = self.edit
        out = edit.add_like(like, edit.tensor(like).type, edit.tensor(like).name + b"/" + name.encode())
        made = {
            "ADD": lambda: self._sum(fused),
            "SUB": lambda: edit.schema.SubOptionsT(potScaleInt16=False),
            "MUL": edit.schema.MulOptionsT,
            "EXP": edit.schema.ExpOptionsT,
            "MINIMUM": edit.schema.MaximumMinimumOptionsT,
        }.get(kind)
        edit.insert(kind, given, out, options=made() if made is not None else None, before=op)
        self._set(out, *span)
        return out

    def _sum(self, fused: int = 0) -> Any:
        # by default only scales of powers of two, for which LiteRT checks by ending the process
        return self.edit.schema.AddOptionsT(fusedActivationFunction=fused, potScaleInt16=False)

    def _number(self, value: float, beside: int) -> int:
        name = self.edit.tensor(beside).name + f"/{value:.3g}".encode()
        return self.edit.add_constant(np.array(value, np.float32), name)

    def _span(self, tensor: int) -> tuple[float, float] | None:
        both = self.ranges.get(self.edit.tensor(int(tensor)).name.decode())
        return None if both is None else (float(np.min(both["min"])), float(np.max(both["max"])))

    def _set(self, tensor: int, low: float, high: float) -> None:
        name = self.edit.tensor(int(tensor)).name.decode()
        self.ranges[name] = {end: np.array([value], np.float32) for end, value in (("min", low), ("max", high))}
