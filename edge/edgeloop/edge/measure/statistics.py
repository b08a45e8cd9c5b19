"""Times in, the percentiles that so many runs support out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# The fewest runs of MLPerf Inference's early stopping: the smallest n with P(Binomial(n, q) >= n - 1) <= 1%, so that
# one run may lie above the percentile and it is still one with 99% confidence. Fewer runs give no estimate there.
# https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc (appendix "Early Stopping Criterion")
# https://github.com/mlcommons/inference/blob/master/loadgen/early_stopping.cc
FEWEST_RUNS = {50: 11, 90: 64, 95: 130, 99: 662}


def percentile(times_ms: Sequence[float], q: int) -> float | None:
    """A time that was measured and that q% of the runs did not exceed; None: `FEWEST_RUNS[q]` were not made."""
    if len(times_ms) < FEWEST_RUNS[q]:
        return None
    return float(np.percentile(times_ms, q, method="higher"))  # never a time in between two


def turn_medians(times_ms: Sequence[float], block: int) -> np.ndarray:
    """The median of each turn of `block` runs, in order; of a last, shorter turn there is none."""
    turns = len(times_ms) // block
    return np.median(np.reshape(times_ms[: turns * block], (turns, block)), axis=1)
