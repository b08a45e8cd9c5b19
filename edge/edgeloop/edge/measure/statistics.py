"""Times in, the median of each turn out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def turn_medians(times_ms: Sequence[float], block: int) -> np.ndarray:
    """The median of each turn of `block` runs, in order; of a last, shorter turn there is none."""
    turns = len(times_ms) // block
    return np.median(np.reshape(times_ms[: turns * block], (turns, block)), axis=1)
