"""Toom-Cook's convolution, of Winograd's kind, in one dimension: fewer multiplications, more sums.

m outputs of r taps take m + r - 1 products in place of m * r (Lavin and Gray 2015, arXiv:1509.09308). Here a product is
one of matrices, and the sums are of small images, with as few operations as signs and repeated sizes allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

Tensor = Any
POINTS = (0.0, 1.0, -1.0, 2.0, -2.0)


@cache
def matrices(m: int, r: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AT [m, n], G [n, r] and BT [n, n] of y = AT @ ((G @ w) * (BT @ x)), which is y[t] = sum of w[i] * x[t + i]."""
    n = m + r - 1
    points = POINTS[: n - 1]
    # of polynomials at the points and at infinity; the product of two has the degree n - 1, and the inverse is exact
    values = [
        np.array([[p**j for j in range(cols)] for p in points] + [[0.0] * (cols - 1) + [1.0]]) for cols in (m, r, n)
    ]
    scale = np.array([np.prod([p - q for q in points if q != p]) for p in points] + [1.0])[:, None]
    back = np.round(np.linalg.inv(values[2]).T * scale, 12)
    return values[0].T, values[1] / scale, back


def transform(matrix: np.ndarray, parts: Sequence[Tensor]) -> list[Tensor]:
    """For each row, the sum of row[i] * parts[i]. Rows that differ in signs alone share their even and odd halves."""
    found: list[Tensor] = [None] * len(matrix)
    for i, row in enumerate(matrix):
        if found[i] is not None:
            continue
        twin = next((j for j in range(i + 1, len(matrix)) if found[j] is None and _alike(row, matrix[j])), None)
        if twin is None:
            found[i] = weighted_sum(row, parts)
        else:
            even, odd = (weighted_sum((row + sign * matrix[twin]) / 2, parts) for sign in (1, -1))
            found[i], found[twin] = even + odd, even - odd
    return found


def _alike(row: np.ndarray, other: np.ndarray) -> bool:
    """Whether the halves save an operation: signs differ in some places, not in all, of at least three."""
    sizes = np.array_equal(abs(row), abs(other)) and np.count_nonzero(row) > 2
    return bool(sizes and not np.array_equal(row, other) and not np.array_equal(row, -other))


def weighted_sum(row: np.ndarray, parts: Sequence[Tensor]) -> Tensor:
    """The sum of row[i] * parts[i]: those of one size are multiplied once, and positive ones come first."""
    by_size: dict[float, list[int]] = {}
    for i in sorted(np.flatnonzero(row), key=lambda i: (abs(row[i]) != 1.0, row[i] < 0)):
        by_size.setdefault(abs(float(row[i])), []).append(int(i))
    signed = [_group([(row[i] < 0, parts[i]) for i in places], size) for size, places in by_size.items()]
    signed.sort(key=lambda item: item[0])
    negative, total = signed[0]
    for minus, value in signed[1:]:
        total = total + value if minus == negative else total - value
    return -total if negative else total


def _group(members: Sequence[tuple[bool, Tensor]], size: float) -> tuple[bool, Tensor]:
    """(whether it counts as negative, size * the sum of members by their signs); a negative one only if all are."""
    negative, total = members[0]
    for minus, value in members[1:]:
        total = total + value if minus == negative else total - value
    return negative, total if size == 1.0 else total * size
