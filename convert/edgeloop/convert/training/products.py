"""Products of matrices whose gradients lower to builtin TFLite ops, and to those of them that XNNPACK takes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

from edgeloop.convert.training.windows import added, cut, joined
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

Tensor = Any
CACHED = 200_000  # numbers of one operand, 0.8 MB: products of larger ones wait for memory, not for the processor


def matmul(a: Tensor, b: Tensor, *, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """[..., m, k] @ [..., k, n] as BATCH_MATMUL, which XNNPACK takes with variable operands.

    `transpose_b` needs three dimensions: of two the converter makes FULLY_CONNECTED, which XNNPACK takes only with
    constant weights.
    """
    return tf.raw_ops.BatchMatMulV2(x=a, y=b, adj_x=transpose_a, adj_y=transpose_b)


def dense(x: Tensor, *rows: Tensor) -> Tensor:
    """[..., k] @ [k, n], of which `rows` are the rows in order, in one tensor or in several."""
    if len(x.shape) == 2:
        return _product(x, rows)
    return tf.reshape(_product(tf.reshape(x, [-1, x.shape[-1]]), rows), [-1, *x.shape[1:-1], rows[0].shape[-1]])


def split_rows(kernel: Any) -> list[Any]:
    """The rows of a variable [k, n], in as many variables as keep each in a core's cache."""
    rows = max(1, CACHED // kernel.shape[1])
    return [tf.Variable(kernel[i : i + rows]) for i in range(0, kernel.shape[0], rows)]


def _product(x: Tensor, ws: Sequence[Tensor]) -> Tensor:
    @tf.custom_gradient
    def product(x: Tensor, *ws: Tensor) -> Any:
        places = pairwise(accumulate([0, *(int(w.shape[0]) for w in ws)]))
        seen = [cut(x, (0, x.shape[0]), place) for place in places]

        def gradient(dy: Tensor) -> Any:
            wide = tf.reshape(dy, [1, *dy.shape])
            dx = joined([matmul(wide, w, transpose_b=True) for w in ws], -1)
            return tf.reshape(dx, x.shape), *(matmul(v, dy, transpose_a=True) for v in seen)

        return added([matmul(v, w) for v, w in zip(seen, ws, strict=True)]), gradient

    return product(x, *ws)
