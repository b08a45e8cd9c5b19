"""Times in, a percentile that so many support out. Python 3.9 syntax, the standard library: a device asks it, too."""

from __future__ import annotations

from collections.abc import Sequence

# The fewest runs of MLPerf Inference's early stopping: the smallest n with P(Binomial(n, q) >= n - 1) <= 1%, so that
# one run may lie above the percentile and it is still one with 99% confidence. Fewer runs give no estimate there.
# https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc (appendix "Early Stopping Criterion")
# https://github.com/mlcommons/inference/blob/master/loadgen/early_stopping.cc
FEWEST_RUNS = {50: 11, 90: 64, 95: 130, 99: 662}


def percentile(times_ms: Sequence[float], q: int) -> float | None:
    """A time that was measured and that q% of the runs did not exceed, the higher neighbour where it falls between two;
    None: `FEWEST_RUNS[q]` were not made."""
    if len(times_ms) < FEWEST_RUNS[q]:
        return None
    return float(sorted(times_ms)[-(-q * (len(times_ms) - 1) // 100)])
