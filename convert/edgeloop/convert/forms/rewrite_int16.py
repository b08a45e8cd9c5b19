"""A float32 .tflite and the ranges of its tensors in; what has no kernel for 16 bits in operators that have one, out.

int8 has kernels for all of these, and rounds a single time in them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgeloop.convert.forms.flatbuffer_tree import read_tree, write_tree
from edgeloop.convert.forms.graph_edit import edits, without_unused_codes
from edgeloop.convert.forms.int16_graph import LEAST, MARGIN, Int16Graph
from edgeloop.convert.forms.masks import Ranges
from edgeloop.files.flatbuffer import read_tflite

Rule = Callable[[Int16Graph, Any], None]
SPREAD = 16.0  # of the input of RSQRT, the largest over the least value: below it, 256 steps are enough
ROOM = 1.5  # times the largest value, where steps are dear


def for_int16(float32: bytes, ranges: Ranges) -> tuple[bytes, Ranges]:
    """Both themselves where no rule applies; with the ranges of what was added.

    Raises:
        ModelError: The flatbuffer is damaged.
    """
    return _rewritten(float32, ranges, RULES)


def with_small_powers(float32: bytes, ranges: Ranges) -> tuple[bytes, Ranges]:
    """As `for_int16`, of what int8 needs too: a SELU whose exp(x) of large x would leave no steps below 1.

    Raises:
        ModelError: The flatbuffer is damaged.
    """
    return _rewritten(float32, ranges, SMALL_POWERS)


def _rewritten(float32: bytes, ranges: Ranges, rules: Mapping[str, Rule]) -> tuple[bytes, Ranges]:
    if not rules.keys() & {op.name for graph in read_tflite(float32).graphs for op in graph.operators}:
        return float32, ranges
    tree, found, changed = read_tree(float32), dict(ranges), False
    for edit in edits(tree):
        graph = Int16Graph(edit, found)
        for kind, rule in rules.items():
            for op in edit.operators(kind):
                if edit.is_float(op.outputs[0]):  # the limit of an index holds for what no sample has, too
                    rule(graph, op)
        changed = edit.tidied() or changed
    return (write_tree(without_unused_codes(tree)), found) if changed else (float32, ranges)


def squared_difference(graph: Int16Graph, op: Any) -> None:
    """(a - b)^2 as a SUB and its square."""
    span = graph.span(op.outputs[0])
    if span is not None:
        most = max(math.sqrt(max(span[1], 0.0)), LEAST)
        difference = graph.before(op, "SUB", list(op.inputs), (-most, most), "difference")
        graph.edit.become(op, "MUL", [difference, difference], graph.edit.schema.MulOptionsT())


def reciprocal_root(graph: Int16Graph, op: Any) -> None:
    """1 / sqrt(x), of an x that spans decades, as that of min(x, a) plus that of max(x, a) less 1 / sqrt(a).

    The kernel interpolates between 256 values of x: below a 50th of the largest, all were nearly one. A
    LayerNormalization behind a convolution with a ReLU: -2.2 dB, 41.6 this way.
    """
    span = graph.span(op.inputs[0])
    if span is None or span[0] <= 0 or span[1] < SPREAD * span[0]:
        return
    x, low, high = int(op.inputs[0]), span[0], ROOM * span[1]
    a = math.sqrt(low * high)
    top, least = 1 / math.sqrt(low), 1 / math.sqrt(a)
    _narrow(graph, x, high)
    border = graph.number(a, op)
    below = graph.before(op, "SUB", [border, x], (a - high, a), "below")
    under = graph.before(op, "RELU", [below], (0.0, a / MARGIN), "under")
    above = graph.before(op, "SUB", [x, border], (-a, high), "above")
    over = graph.before(op, "RELU", [above], (0.0, high / MARGIN), "over")
    near = graph.before(op, "SUB", [border, under], (0.0, a / MARGIN), "near")
    far = graph.before(op, "ADD", [over, border], (0.0, (high + a) / MARGIN), "far")
    steep = graph.before(op, "RSQRT", [near], (0.0, top), "steep")
    flat = graph.before(op, "RSQRT", [far], (0.0, least), "flat")
    rest = graph.before(op, "ADD", [flat, graph.number(-least, op)], (-least, 0.0), "rest")
    graph.edit.become(op, "ADD", [steep, rest], graph.sum())


def _narrow(graph: Int16Graph, tensor: int, high: float) -> None:
    """Give a tensor, and what a constant was added to for it, no more room than `high`."""
    tensors, add = [tensor], graph.edit.maker(tensor)
    if add is not None and graph.edit.kind(add) == "ADD" and graph.edit.only_reader(graph.computed(add)) is not None:
        tensors.append(graph.computed(add))
    for one in tensors:
        graph.set(one, 0.0, high / MARGIN)


def limit(graph: Int16Graph, op: Any) -> None:
    """A MINIMUM or MAXIMUM with a number that no value reaches: 1e12 would take the whole range."""
    x = graph.computed(op)
    values = [graph.edit.constant(int(i)) for i in op.inputs]
    limits = [float(v.ravel()[0]) for v in values if v is not None and v.size == 1]
    span = graph.span(x) if x >= 0 else None
    if span is None or len(limits) != 1 or graph.edit.is_output(int(op.outputs[0])):
        return
    upper = graph.edit.kind(op) == "MINIMUM"
    if limits[0] > MARGIN * max(span[1], LEAST) if upper else limits[0] < MARGIN * min(span[0], -LEAST):
        for reader in graph.edit.readers(int(op.outputs[0])):
            graph.edit.read_instead(reader, int(op.outputs[0]), x)


def hard_swish(graph: Int16Graph, op: Any) -> None:
    """x * ReLU6(x + 3) / 6"""
    x, relu6 = int(op.inputs[0]), graph.edit.schema.ActivationFunctionType.RELU6
    gate = graph.before(op, "ADD", [x, graph.number(3.0, op)], (0.0, 6.0), "gate", relu6)
    share = graph.before(op, "MUL", [gate, graph.number(1 / 6, op)], (0.0, 1.0), "share")
    graph.edit.become(op, "MUL", [x, share], graph.edit.schema.MulOptionsT())


def elu(graph: Int16Graph, op: Any) -> None:
    """max(x, 0) + (exp(min(x, 0)) - 1)"""
    x, span = int(op.inputs[0]), graph.span(op.inputs[0])
    if span is None:
        return
    power = graph.before(op, "EXP", [graph.negative_part(op, x, span[0])], (0.0, 1.0), "exp")
    less = graph.before(op, "ADD", [power, graph.number(-1.0, op)], (-1.0, 0.0), "less")
    above = graph.before(op, "RELU", [x], (0.0, max(span[1], LEAST)), "above")
    graph.edit.become(op, "ADD", [above, less], graph.sum())


def selu(graph: Int16Graph, op: Any) -> None:
    """x > 0 ? x * a : (exp(x) - 1) * b, as max(x, 0) * a + (exp(min(x, 0)) - 1) * b"""
    found = _selu(graph, op)
    if found is None:
        return
    x, scaled, power, chain = found
    low, high = graph.span(x) or (0.0, 0.0)
    first = next(one for one in graph.edit.graph.operators if one is scaled or one is power)
    above = graph.before(first, "RELU", [x], (0.0, max(high, LEAST)), "above")
    # not as a MINIMUM: one quantizer gives it and x one range, and x has other readers
    below = graph.before(first, "SUB", [x, above], (min(low, -LEAST), 0.0), "below")
    graph.edit.read_instead(scaled, x, above)
    graph.edit.read_instead(power, x, below)
    graph.set(power.outputs[0], 0.0, 1.0)
    least = -1.0
    for step in chain:  # less 1, then times a number
        least *= graph.factor(step)
        graph.set(step.outputs[0], min(least, 0.0), max(least, 0.0))
    graph.set(scaled.outputs[0], *sorted((0.0, max(high, LEAST) * graph.factor(scaled))))
    graph.edit.become(op, "ADD", [scaled.outputs[0], chain[-1].outputs[0]], graph.sum())


def _selu(graph: Int16Graph, op: Any) -> tuple[int, Any, Any, list[Any]] | None:
    """(x, the MUL of its positive part, the EXP, what follows it)."""
    edit = graph.edit
    compare, scaled, last = (edit.maker(int(i)) for i in op.inputs)
    if compare is None or scaled is None or last is None or edit.kind(compare) not in ("GREATER", "GREATER_EQUAL"):
        return None
    x, zero = int(compare.inputs[0]), edit.constant(int(compare.inputs[1]))
    chain = [last]
    while edit.kind(chain[0]) == "MUL" and graph.factor(chain[0]) and edit.maker(graph.computed(chain[0])):
        chain.insert(0, edit.maker(graph.computed(chain[0])))
    power = edit.maker(graph.computed(chain[0]))
    if zero is None or np.any(zero != 0) or power is None or edit.kind(power) != "EXP" or int(power.inputs[0]) != x:
        return None
    if not _less_one(graph, chain[0]) or edit.kind(scaled) != "MUL" or graph.computed(scaled) != x:
        return None
    alone = all(edit.only_reader(int(step.outputs[0])) is not None for step in (*chain, scaled, power))
    return (x, scaled, power, chain) if alone and graph.factor(scaled) and graph.span(x) is not None else None


def _less_one(graph: Int16Graph, op: Any) -> bool:
    wanted = {"SUB": 1.0, "ADD": -1.0}.get(graph.edit.kind(op))
    value = next((c for c in (graph.edit.constant(int(i)) for i in op.inputs) if c is not None), None)
    return value is not None and wanted is not None and bool(np.all(value == wanted))


RULES = {
    "SQUARED_DIFFERENCE": squared_difference,
    "RSQRT": reciprocal_root,
    "MINIMUM": limit,
    "MAXIMUM": limit,
    "HARD_SWISH": hard_swish,
    "ELU": elu,
    "SELECT": selu,
    "SELECT_V2": selu,
}
SMALL_POWERS = {kind: RULES[kind] for kind in ("SELECT", "SELECT_V2")}
