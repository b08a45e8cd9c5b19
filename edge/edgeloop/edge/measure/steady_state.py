"""Times in order in; the first run from which on they are steady out, or why they never are.

A window is one turn, so that what changes between two turns (another core, another program) counts as one change and
not as one for every run of it.

Sources
    the test    Hawkins and Deng (2010), A nonparametric change-point control chart, Journal of Quality Technology 42(2)
    why         Barrett et al. (2017), Virtual machine warmup blows hot and cold: that a warm-up is over is often
                assumed and seldom so
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from edgeloop.edge.measure.bench_records import SteadyState
from edgeloop.edge.measure.statistics import turn_medians

TOLERANCE = 0.02  # of consecutive window medians
CONSECUTIVE = 3  # windows that agree at the start of a steady state
FEWEST = 10  # windows of a steady state: of fewer than 8, a test of ranks rejects nothing at 5%, not even a clean step
LEVEL = 0.75  # share of a steady state's windows within the tolerance of its median; a periodic series has fewer
ALPHA = 0.05
MATTERS = 0.01  # between the medians before and after a change point: half the tolerance; less is seen but not counted
PERMUTATIONS = 1999


def find_steady_state(wall_ms: Sequence[float], block: int) -> SteadyState:
    """The first turn from which on the times are steady, in the first half of them: the other half is the evidence.

    Steady: three consecutive window medians lie within 2% of each other, three quarters of all that follow within 2%
    of their median, and no change point comes after.
    """
    medians = turn_medians(wall_ms, block)
    if len(medians) < FEWEST:
        return SteadyState(
            reached=False,
            start=None,
            why=f"{len(wall_ms)} runs are too few to detect a steady state; it needs {FEWEST * block}",
        )
    why = ""
    for start in range(min(len(medians) // 2, len(medians) - FEWEST) + 1):
        why = _unsteady(medians[start:], start * block, block)
        if not why:
            return SteadyState(reached=True, start=start * block, why=f"no change point after run {start * block}")
    return SteadyState(reached=False, start=None, why=why)


def _unsteady(medians: np.ndarray, first_run: int, block: int) -> str:
    """Why these windows are not a steady state; empty: they are one."""
    near = np.abs(medians / np.median(medians) - 1) <= TOLERANCE
    if near.mean() < LEVEL:
        return f"only {near.sum()} of the last {len(near)} window medians lie within 2% of their median"
    beginning = medians[:CONSECUTIVE]
    if beginning.max() > beginning.min() * (1 + TOLERANCE):
        return f"no {CONSECUTIVE} consecutive window medians of the first half lie within 2% of each other"
    p, at = change_point(medians)
    change = np.median(medians[at:]) / np.median(medians[:at]) - 1
    if p <= ALPHA and abs(change) > MATTERS:
        return f"the times change by {change:+.0%} at run {first_run + at * block} (p = {p:.3f})"
    return ""


def change_point(values: np.ndarray) -> tuple[float, int]:
    """p of "all come from one distribution", and the index of the first value after the likeliest change.

    The statistic is the largest of the Mann-Whitney statistics between what comes before a point and what comes after
    it, each over its own standard deviation: unlike the plain sum of ranks (Pettitt 1979) it also sees a change near
    the end. Its p comes from random permutations, for 20 values are too few for an approximation.
    """
    ranks = (values[:, None] > values).sum(1) + ((values[:, None] == values).sum(1) + 1) / 2  # ties share theirs
    walk = _walk(ranks)
    null = _null(len(values))
    p = (1 + np.count_nonzero(null >= walk.max() - 1e-9)) / (1 + len(null))
    return float(p), int(walk.argmax()) + 1


def _walk(ranks: np.ndarray) -> np.ndarray:
    """[..., n - 1]: |2 (R_1 + ... + R_t) - t (n + 1)| over sqrt(t (n - t) (n + 1) / 3), for each t below n."""
    n = ranks.shape[-1]
    t = np.arange(1, n)
    return np.abs(2 * np.cumsum(ranks, -1)[..., :-1] - t * (n + 1)) / np.sqrt(t * (n - t) * (n + 1) / 3)


@cache
def _null(n: int) -> np.ndarray:
    """The statistic where order means nothing."""
    ranks = np.tile(np.arange(1.0, n + 1), (PERMUTATIONS, 1))
    return _walk(np.random.default_rng(0).permuted(ranks, axis=1)).max(1)
