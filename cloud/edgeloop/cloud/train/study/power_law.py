"""Errors measured at some sizes in, the error expected at other sizes out, with its interval.

The error of a trained net falls with the number of examples n as floor + scale * n^-rate. Sources: Hestness et al.
2017, https://arxiv.org/abs/1712.00409, equation 1; Figueroa et al. 2012, https://doi.org/10.1186/1472-6947-12-8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeloop.errors import DataError

RATES = np.linspace(0.05, 2.0, 79)  # published rates lie between 0.07 and 0.5; 1 and more where a net soon knows all
DRAWS = 400
INTERVAL = (2.5, 97.5)  # per cent: 95%


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLaw:
    """error(n) = floor + scale * n ** -rate."""

    floor: float
    scale: float
    rate: float

    def at(self, size: float) -> float:
        """The error expected with `size` examples."""
        return self.floor + self.scale * float(size) ** -self.rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The error at one size, 0 to 1: what is expected, and the interval that holds it in 95% of the draws."""

    size: int
    error: float
    low: float
    high: float


def fit_power_law(sizes: Sequence[float], errors: Sequence[float]) -> PowerLaw:
    """The curve with the least squares of relative errors; floor and scale are never below 0.

    Raises:
        DataError: Fewer than three different sizes: a curve of three numbers fits any two points.
    """
    floor, scale, rate = _fit(np.asarray(sizes, float), np.asarray([errors], float))[0]
    return PowerLaw(floor=float(floor), scale=float(scale), rate=float(rate))


def forecast(
    sizes: Sequence[int], errors: Sequence[float], judged_on: int, wanted: Sequence[int], seed: int = 0
) -> tuple[Forecast, ...]:
    """The error expected at each of the `wanted` sizes, with its 95% interval.

    The interval is a parametric bootstrap: each measured error is drawn again as a share of `judged_on` examples, the
    count on which it was measured (binomial), and the curve is fitted again.
    """
    law = fit_power_law(sizes, errors)
    random = np.random.default_rng(seed)
    shares = np.clip(np.asarray(errors, float), 0, 1)
    drawn = random.binomial(judged_on, shares, (DRAWS, len(shares))) / judged_on
    floors, scales, rates = _fit(np.asarray(sizes, float), drawn).T
    intervals = [np.percentile(floors + scales * float(size) ** -rates, INTERVAL) for size in wanted]
    return tuple(
        Forecast(size=size, error=law.at(size), low=float(low), high=float(high))
        for size, (low, high) in zip(wanted, intervals, strict=True)
    )


def _fit(n: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Floor, scale and rate [rows, 3] of each row of errors [rows, sizes], by least squares in closed form."""
    if len(set(n)) < 3:
        raise DataError(
            f"{len(set(n))} different sizes were measured; a forecast needs at least 3", advice="Measure more sizes."
        )
    weight = 1 / np.maximum(errors, np.max(errors, 1, keepdims=True) / 100 + 1e-12) ** 2
    best = np.zeros((len(errors), 3))
    least = np.full(len(errors), np.inf)
    for rate in RATES:
        falling = n**-rate
        for floor, scale in _solutions(weight, falling, errors):
            residual = np.sum(weight * (floor[:, None] + scale[:, None] * falling - errors) ** 2, 1)
            better = (floor >= 0) & (scale >= 0) & (residual < least)
            least[better] = residual[better]
            best[better] = np.stack([floor, scale, np.full(len(errors), rate)], 1)[better]
    return best


def _solutions(weight: np.ndarray, falling: np.ndarray, y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weighted least squares of floor + scale * falling: both, the floor alone, the scale alone."""
    ones, fall, square = (np.sum(weight * falling**power, 1) for power in (0, 1, 2))
    at_one, at_fall = np.sum(weight * y, 1), np.sum(weight * falling * y, 1)
    zero = np.zeros(len(y))
    scale = (ones * at_fall - fall * at_one) / (ones * square - fall**2)
    return [((at_one - scale * fall) / ones, scale), (at_one / ones, zero), (zero, at_fall / square)]
