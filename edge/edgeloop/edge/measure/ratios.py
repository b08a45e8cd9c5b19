"""Turns of two measurements in, the ratio of their times with a 95% interval out.

The two took turns, so what slowed the machine down for a while slowed both, and is gone from the ratio of one turn to
its neighbour. The ratio is the median of those. Its interval comes from drawing turns again: circular blocks of
n^(1/3) of them, because one turn resembles the next, widened by sqrt(n / (n - length)) and Student's t, because a few
blocks vary less than what they are drawn from.

Measured by simulation, 600 experiments each with 10 to 130 turns of five runs: the interval held the true ratio in 90
to 96% of them where turns are independent (even noise, two speeds, heavy tails, drift), and in 84 to 93% where one
side's turns hang together (lag-1 correlation 0.5).

Sources: Kuensch (1989), The jackknife and the bootstrap for general stationary observations, Annals of Statistics 17.
Politis and Romano (1992), A circular block-resampling procedure for stationary data.
"""

from __future__ import annotations

import numpy as np

from edgeloop.edge.measure.bench_records import Interval

FEWEST_TURNS = 10
RESAMPLES = 1000
NORMAL_975 = 1.959964


def paired(of_ms: np.ndarray, to_ms: np.ndarray, seed: int = 0) -> Interval:
    """Turn k of one against turn k of the other: the same number of turn medians, neighbours in time."""
    ratios = np.log(of_ms / to_ms)
    drawn = np.median(ratios[_draws(len(ratios), seed)], axis=1)
    return _interval(float(np.median(ratios)), drawn, len(ratios))


def unpaired(of_ms: np.ndarray, to_ms: np.ndarray, seed: int = 0) -> Interval:
    """Turn medians of two measurements that did not alternate, any number each: what changed between them stays in."""
    of, to = np.log(of_ms), np.log(to_ms)
    drawn = np.median(of[_draws(len(of), seed)], axis=1) - np.median(to[_draws(len(to), seed + 1)], axis=1)
    return _interval(float(np.median(of) - np.median(to)), drawn, min(len(of), len(to)))


def _draws(n: int, seed: int) -> np.ndarray:
    """[RESAMPLES, n]: indices of turns, drawn in blocks that go on at the beginning where the turns end."""
    length = _length(n)
    starts = np.random.default_rng(seed).integers(0, n, (RESAMPLES, -(-n // length)))
    return ((starts[:, :, None] + np.arange(length)) % n).reshape(RESAMPLES, -1)[:, :n]


def _interval(middle: float, drawn: np.ndarray, n: int) -> Interval:
    """Of logarithms; without an interval below FEWEST_TURNS."""
    if n < FEWEST_TURNS:
        return Interval(ratio=float(np.exp(middle)), low=None, high=None)
    # Student's t at 97.5% over the normal's: Abramowitz and Stegun 26.7.5, first term
    student = 1 + (NORMAL_975**2 + 1) / (4 * (n - 1))
    ends = np.percentile(drawn, [2.5, 97.5])
    low, high = np.exp(middle + (ends - middle) * student * np.sqrt(n / (n - _length(n))))
    return Interval(ratio=float(np.exp(middle)), low=float(low), high=float(high))


def _length(n: int) -> int:
    return max(1, round(n ** (1 / 3)))
