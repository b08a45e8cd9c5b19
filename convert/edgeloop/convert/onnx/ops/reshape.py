"""Reshape and Flatten, with as little moved in memory as can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.value import AtRunTime, Value, shape_of, size, two_sizes
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

Symbols = list[tuple[int, int]]  # sizes under both assignments of the free dimensions


def targets(v: Value, symbols: Symbols | None = None) -> list[Any]:
    """A shape that is an input: numbers where they are known, else scalar tensors.

    Args:
        symbols: Gets the sizes under both assignments.

    Raises:
        AtRunTime: The rank of the result is only known at run time.
    """
    if v.const is not None:
        found = [int(d) for d in v.const.ravel()]
        if symbols is not None:
            symbols += [(d, d) for d in found]
        return found
    tensor, pair = v.onnx(), v.pair
    if tensor.shape.rank != 1 or tensor.shape[0] is None:
        raise AtRunTime("a shape whose length is only known at run time")
    pairs = [(int(pair[0][i]), int(pair[1][i])) if pair else two_sizes("") for i in range(tensor.shape[0])]
    if symbols is not None:
        symbols += pairs
    return [a if a == b else tensor[i] for i, (a, b) in enumerate(pairs)]


def reshape(n: Node, x: Value, target: Value | None = None) -> Value:
    """Reshape (ONNX 1, 5, 13, 14, 19, 21): 0 keeps a size (without allowzero), -1 takes what is left."""
    symbols: Symbols = []
    want = targets(target, symbols) if target is not None else list(n.attr("shape"))
    symbols = symbols or [(d, d) for d in want]
    for i, d in enumerate(want):
        if isinstance(d, int) and d == 0 and not n.attr("allowzero", 0):
            symbols[i] = x.symbols()[i]
            want[i] = x.dims[i] if x.dims[i] is not None else tf.shape(x.raw())[x.perm.index(i)]
    return reshaped(x, want, symbols)


def reshaped(x: Value, want: list[Any], symbols: Symbols | None = None) -> Value:
    """To sizes that are numbers (one may be -1) or scalar tensors."""
    symbols = symbols if symbols is not None else [(d, d) if isinstance(d, int) else two_sizes("") for d in want]
    want, symbols = _solved(x, want, symbols)
    free = [i for i, d in enumerate(want) if not isinstance(d, int) or d == -1]
    if len(free) == 1 and math.prod(d for i, d in enumerate(want) if i not in free):
        want = [-1 if i in free else d for i, d in enumerate(want)]  # TensorFlow computes the one that is left
    perm, order = _regrouped(x, [s[0] for s in x.symbols()], [s[0] for s in symbols])
    t = x.to(perm)
    if all(isinstance(d, int) for d in want):
        return Value(tf.reshape(t, [want[a] for a in order]), x.dtype, order)
    if unknown := [i for i, d in enumerate(want) if isinstance(d, int) and d == -1]:
        count = tf.reduce_prod(shape_of([size(t, i) for i in range(x.rank)]))
        product = tf.reduce_prod(shape_of([tf.cast(d, tf.int32) for i, d in enumerate(want) if i not in unknown]))
        want = [tf.math.floordiv(count, product) if i in unknown else d for i, d in enumerate(want)]
    return Value(tf.reshape(t, shape_of([want[a] for a in order])), x.dtype, order)


def _solved(x: Value, want: list[Any], symbols: Symbols) -> tuple[list[Any], Symbols]:
    """The sizes with -1 replaced, as far as both assignments of the free dimensions say the same."""
    rest = [i for i, d in enumerate(want) if isinstance(d, int) and d == -1]
    others = [math.prod(s[k] for i, s in enumerate(symbols) if i not in rest) for k in (0, 1)]
    if not rest or not all(others):
        return want, symbols
    (a, left_a), (b, left_b) = (divmod(math.prod(s[k] for s in x.symbols()), others[k]) for k in (0, 1))
    if left_a or left_b:
        return want, symbols
    symbols = [(a, b) if i in rest else s for i, s in enumerate(symbols)]
    return ([a if i in rest else d for i, d in enumerate(want)] if a == b else want), symbols


def _regrouped(x: Value, have: list[int], goal: list[int]) -> tuple[Sequence[int], Sequence[int]]:
    """The order in which the tensor has to lie, and the order of the new axes in memory then.

    Both shapes are split into the shortest runs of axes with equal numbers of elements. Axes of one run have to lie
    side by side and in order, the runs may lie in any: ShuffleNet's TRANSPOSE operators fell from 33 to 17.
    """
    plain = tuple(range(x.rank)), tuple(range(len(goal)))
    if x.perm == plain[0] or 0 in have or math.prod(have) != math.prod(goal):
        return plain
    runs = equal_runs(have, goal)
    if runs is None:
        return plain
    real = [[axis for axis in a if have[axis] != 1] for a, _ in runs]
    # by the last place, so that what moves moves in long pieces: the outputs of a bidirectional layer, which lie as
    # [time, 2, batch, units], become [time, batch, 2 units] and not [time, 2 units, batch]
    last = [max((x.perm.index(axis) for axis in r), default=-1) for r in real]
    ranked = sorted(range(len(runs)), key=lambda run: last[run])
    perm = [axis for run in ranked for axis in real[run]]
    if [axis for axis in x.perm if axis in perm] == perm:  # already so: axes of one element may lie anywhere
        perm = list(x.perm)
    else:
        perm = [axis for axis in range(x.rank) if axis not in perm] + perm
    return perm, [axis for run in ranked for axis in runs[run][1]]


def equal_runs(have: list[int], goal: list[int]) -> list[tuple[list[int], list[int]]] | None:
    """The shortest runs of axes of both shapes with equal numbers of elements; None if the shapes do not split."""
    runs, i, j = [], 0, 0
    while i < len(have) or j < len(goal):
        a: list[int] = []
        b: list[int] = []
        left = right = 1
        while True:
            if left <= right and i < len(have) and (left < right or not a):
                left *= have[i]
                a.append(i)
                i += 1
            elif j < len(goal) and (right < left or not b):
                right *= goal[j]
                b.append(j)
                j += 1
            else:
                break
        if left != right:
            return None
        runs.append((a, b))
    return runs


def flatten(n: Node, x: Value) -> Value:
    """Flatten (ONNX 1, 9, 11, 13, 21): two axes, of the sizes before `axis` and from it on."""
    axis = n.attr("axis", 1)
    return flattened(x, axis + x.rank if axis < 0 else axis)


def flattened(x: Value, axis: int) -> Value:
    """Of two axes: everything before `axis`, and everything from it on."""
    front, back = x.dims[:axis], x.dims[axis:]
    behind: Any = math.prod(back) if None not in back else -1
    if None not in front:
        return reshaped(x, [math.prod(front), behind])
    if behind > 0:
        return reshaped(x, [-1, behind])
    sizes = [size(x.onnx(), i) for i in range(axis)]
    return reshaped(x, [tf.reduce_prod(shape_of(sizes)) if len(sizes) > 1 else sizes[0], behind])


OPS = {"Flatten": flatten, "Reshape": reshape}
