"""Times in, the median of each turn and the interval of a percentile out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeloop.edge.on_device.percentiles import FEWEST_RUNS

LEVEL = 0.95


def turn_medians(times_ms: Sequence[float], block: int) -> np.ndarray:
    """The median of each turn of `block` runs, in order; of a last, shorter turn there is none."""
    turns = len(times_ms) // block
    return np.median(np.reshape(times_ms[: turns * block], (turns, block)), axis=1)


def percentile_interval(times_ms: Sequence[float], q: int) -> tuple[float, float] | None:
    """Two of the times, between which the percentile of all runs to come lies with 95% confidence, whatever their
    distribution; None: too few runs for the percentile itself.

    How many of n runs lie below it is binomial, which gives the ranks (Conover, Practical Nonparametric Statistics,
    section 3.2).
    """
    n, p = len(times_ms), q / 100
    if n < FEWEST_RUNS[q]:
        return None
    k = np.arange(n + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    choose = factorials[-1] - factorials - factorials[::-1]
    at_most = np.cumsum(np.exp(choose + k * np.log(p) + (n - k) * np.log1p(-p)))  # P(at most k of n lie below)
    outside = (1 - LEVEL) / 2
    low = int(np.searchsorted(at_most, outside, side="right"))
    high = min(n - 1, int(np.searchsorted(at_most, 1 - outside)))
    ordered = sorted(times_ms)
    return ordered[max(0, low - 1)], ordered[high]
