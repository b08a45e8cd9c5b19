"""An exact sum of float64 arrays over a whole number, rounded once to float32: nearest, ties to even.

float64 decides where its error bound cannot matter. Near the middle between two float32 values, where means of a few
arrays often lie exactly, the sign of sum - divisor * middle decides, from sums without error (VecSum).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

PASSES = 12  # of VecSum until nothing changes; five terms have needed at most four


def rounded_quotient(terms: Sequence[np.ndarray], divisor: int) -> np.ndarray:
    """float32(sum(terms) / divisor) with one rounding. `terms`: float64 arrays [n]; `divisor`: 1 to 2^52 - 1."""
    high, low = terms[-1], np.zeros_like(terms[-1])
    for term in reversed(terms[:-1]):
        high, error = _two_sum(term, high)
        low = low + error
    quotient = (high + low) / float(divisor)
    # Each error term is rounded to 53 bits once or twice and is at most 2^-52 of a partial sum; the divisor is exact.
    size = np.add.reduce([np.abs(term) for term in terms]) * (2.0**-98 / divisor)
    error = np.abs(quotient) * 2.0**-50 + size
    below, above = (quotient - error).astype(np.float32), (quotient + error).astype(np.float32)
    near = np.flatnonzero(below != above)
    if near.size:
        below[near] = _decided([term[near] for term in terms], divisor, below[near], above[near])
    return below + np.float32(0)  # -0 becomes +0


def _decided(terms: list[np.ndarray], divisor: int, below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """The right one of two neighbours for each element."""
    middle = (below.astype(np.float64) + above) / 2  # 25 bits: exact
    coarse = divisor >> 26 << 26  # 26 bits, as is the rest: their products with 25 bits are exact
    parts = [*terms, middle * -float(divisor - coarse)]
    if coarse:
        parts.append(middle * -float(coarse))
    sign, sure = _sign_of_sum(parts)
    even = np.where(below.view(np.uint32) & 1, above, below)
    found = np.where(sign == 0, even, np.where(sign > 0, above, below))
    for k in np.flatnonzero(~sure | (np.nextafter(below, above) != above)):
        found[k] = _exact(Fraction(sum(Fraction(float(term[k])) for term in terms)) / divisor)
    return found


def _sign_of_sum(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The sign of the exact sum of each element, and whether it is sure.

    Where a pass changes nothing, the last part is the sum rounded to float64, so it has the sum's sign.
    """
    parts = list(parts)
    for _ in range(PASSES):
        before = list(parts)
        for k in range(1, len(parts)):
            parts[k], parts[k - 1] = _two_sum(parts[k], parts[k - 1])
        sure = np.logical_and.reduce([a == b for a, b in zip(before, parts, strict=True)])
        if sure.all():
            break
    return np.sign(parts[-1]), sure


def _two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rounded sum and its error: a + b exactly (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _exact(value: Fraction) -> np.float32:
    """The nearest float32 of a fraction, ties to even, by whole numbers."""
    if not value:
        return np.float32(0)
    size = abs(value)
    exponent = max(size.numerator.bit_length() - size.denominator.bit_length() - 24, -149)
    scaled = size / Fraction(2) ** exponent
    if scaled >= 1 << 24:
        exponent += 1
        scaled = size / Fraction(2) ** exponent
    rounded = np.float32(np.ldexp(float(round(scaled)), exponent))  # `round` of a Fraction: half to even
    return rounded if value > 0 else np.float32(-rounded)
