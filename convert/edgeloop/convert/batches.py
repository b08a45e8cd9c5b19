"""Samples in, batches a model takes, whole outputs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

Arrays = Mapping[str, np.ndarray]


def batches(inputs: Arrays, fixed: int | None, size: int = 64) -> Iterator[dict[str, np.ndarray]]:
    """Slices of `size` samples, the last one shorter; or of exactly `fixed`, the last one filled up with the first."""
    count = len(next(iter(inputs.values())))
    step = fixed or size
    for start in range(0, count, step):
        index = np.arange(start, start + step) % count if fixed else np.arange(start, min(start + step, count))
        yield {name: array[index] for name, array in inputs.items()}


def in_batches(call: Callable[[Arrays], Arrays], inputs: Arrays, fixed: int | None) -> dict[str, np.ndarray]:
    """Every output for all samples, each [n, ...]."""
    count = len(next(iter(inputs.values())))
    parts = [call(batch) for batch in batches(inputs, fixed)]
    return {name: np.concatenate([np.asarray(part[name]) for part in parts])[:count] for name in parts[0]}
