"""Einsum (ONNX 12): any equation, as batched matrix products of two inputs at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.matmul import product
from edgeloop.convert.onnx.ops.reductions import reduced
from edgeloop.convert.onnx.value import Unsupported, Value, shape_of, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

SPARE = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def einsum(n: Node, *values: Value) -> Value:
    """Inputs are multiplied from left to right; a letter is summed as soon as nothing later needs it."""
    terms, right = spelled_out(n.attr("equation"), [v.rank for v in values])
    factors = [diagonal(v, term) for v, term in zip(values, terms, strict=True)]
    value, letters = factors[0]
    for i, (other, term) in enumerate(factors[1:], 1):
        later = set(right).union(*(t for _, t in factors[i + 1 :]))
        value, letters = contract(value, letters, other, term, later)
    value, letters = summed_out(value, letters, set(right))
    return Value(value.raw(), value.dtype, [right.index(letters[a]) for a in value.perm])


def spelled_out(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Terms and result with a letter an axis: "..." become letters of their own, an implied result is written.

    Raises:
        Unsupported: The equation does not go with the numbers of axes.
    """
    equation = equation.replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise Unsupported(f"the equation {equation} of {len(ranks)} inputs")
    spare = [c for c in SPARE if c not in equation]
    hidden = [rank - len(t.replace("...", "")) for t, rank in zip(terms, ranks, strict=True)]
    if any(h < 0 or (h > 0 and "..." not in t) for t, h in zip(terms, hidden, strict=True)):
        raise Unsupported(f"the equation {equation} of inputs with {', '.join(map(str, ranks))} axes")
    dots = "".join(spare[: max(hidden)])
    if not arrow:
        letters = left.replace(",", "").replace(".", "")
        right = "..." + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    terms = [t.replace("...", dots[len(dots) - h :]) for t, h in zip(terms, hidden, strict=True)]
    return terms, right.replace("...", dots)


def diagonal(v: Value, term: str) -> tuple[Value, str]:
    """A value whose letters are all different: of one that stands twice ("ii"), the elements with equal places."""
    for c in dict.fromkeys(term):
        while term.count(c) > 1:
            first, second = term.index(c), term.rindex(c)
            t = v.onnx()
            rows, columns = (
                tf.reshape(tf.range(size(t, axis)), [-1 if a == axis else 1 for a in range(v.rank)])
                for axis in (first, second)
            )
            on_it = tf.where(tf.equal(rows, columns), t, tf.zeros([], t.dtype))
            v = reduced(Value(on_it, v.dtype), tf.reduce_sum, [second], keep=False)
            term = term[:second] + term[second + 1 :]
    return v, term


def summed_out(v: Value, letters: str, kept: set[str]) -> tuple[Value, str]:
    """The sum over all letters that are not in `kept`."""
    gone = [letters.index(c) for c in letters if c not in kept]
    if gone:
        v = reduced(v, tf.reduce_sum, gone, keep=False)
    return v, "".join(c for c in letters if c in kept)


def contract(a: Value, la: str, b: Value, lb: str, later: set[str]) -> tuple[Value, str]:
    """One product, as a batched matrix product; letters that are not needed `later` are summed."""
    a, la = summed_out(a, la, later | set(lb))
    b, lb = summed_out(b, lb, later | set(la))
    batch = [c for c in la if c in lb and c in later]
    summed = [c for c in la if c in lb and c not in later]
    rows, columns = [c for c in la if c not in lb], [c for c in lb if c not in la]
    order_a, order_b = batch + rows + summed, batch + summed + columns
    ta, tb = a.to([la.index(c) for c in order_a]), b.to([lb.index(c) for c in order_b])
    sizes = {c: size(ta, i) for i, c in enumerate(order_a)}
    for i, c in enumerate(order_b):
        known = sizes.get(c, 1)
        if isinstance(known, int) and known == 1:  # of the other input; an axis of one element broadcasts
            sizes[c] = size(tb, i)
    y = product(_flat(ta, len(batch), [rows, summed], sizes), _flat(tb, len(batch), [summed, columns], sizes))
    letters = batch + rows + columns
    if y.shape.rank != len(letters):
        y = tf.reshape(y, shape_of([sizes[c] for c in letters]))
    return Value(y, a.dtype), "".join(letters)


def _flat(t: Any, batch: int, parts: Sequence[Sequence[str]], sizes: dict[str, Any]) -> Any:
    """A tensor with its first `batch` axes as they are, and each of the parts that follow as one axis."""
    if all(len(part) == 1 for part in parts):
        return t
    wide = [size(t, i) for i in range(batch)]
    for part in parts:
        known = all(isinstance(sizes[c], int) for c in part)
        wide.append(math.prod(sizes[c] for c in part) if known else tf.reduce_prod(shape_of([sizes[c] for c in part])))
    return tf.reshape(t, shape_of(wide))


OPS: dict[str, Callable[..., Any]] = {"Einsum": einsum}
