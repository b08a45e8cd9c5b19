"""float32 to int8 and back: symmetric, with one float32 scale for each BLOCK values.

A block is scaled by its largest size over 127, so one large value costs accuracy to its own block alone. With a random
generator a value is rounded up with the probability of what is left over: the expected value is the value, so errors of
several devices cancel out in a mean. Without one it is rounded to the nearest: the error is smaller, but not zero in
the mean.

Source: Alistarh et al. 2017, "QSGD" (arXiv:1610.02132), section 3: buckets and stochastic rounding
"""

from __future__ import annotations

import numpy as np

BLOCK = 512  # values of a scale: 4 bytes more for 512
LARGEST = 127


def block_count(size: int) -> int:
    """How many scales so many values have."""
    return -(-size // BLOCK)


def quantize(values: np.ndarray, random: np.random.Generator | None = None) -> tuple[np.ndarray, np.ndarray]:
    """`values`: float32 [n], finite. (int8 [n], scales float32 [block_count(n)])."""
    blocks = np.zeros((block_count(values.size), BLOCK), np.float32)
    blocks.reshape(-1)[: values.size] = values
    scales = (np.abs(blocks).max(axis=1, initial=0) / np.float32(LARGEST)).astype(np.float32)
    blocks /= np.where(scales > 0, scales, np.float32(1))[:, None]
    if random is None:
        np.rint(blocks, out=blocks)
    else:
        blocks += random.random(blocks.shape, np.float32)
        np.floor(blocks, out=blocks)
    np.clip(blocks, -LARGEST, LARGEST, out=blocks)  # of rounding alone: a largest value may come to 127.00001
    return blocks.reshape(-1)[: values.size].astype(np.int8), scales


def dequantize(steps: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """float32 [n] of int8 [n] and its scales."""
    values = steps.astype(np.float32)
    values *= np.repeat(scales, BLOCK)[: steps.size]
    return values
