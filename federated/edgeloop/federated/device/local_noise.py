"""Local differential privacy: a device clips its update and adds noise before the update leaves it.

Flower's `LocalDpMod` is not used: it divides by zero where an update changes nothing, and its formula of the standard
deviation holds for an epsilon below 1 alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

CLIPPING, NOISE = "clipping-norm", "noise-multiplier"  # keys of a train message


def with_local_noise(
    base: Mapping[str, np.ndarray], trained: Mapping[str, np.ndarray], clipping_norm: float, noise_multiplier: float
) -> dict[str, np.ndarray]:
    """Weights whose difference to `base` was scaled down to an L2 norm of `clipping_norm`, with Gaussian noise.

    Args:
        base, trained: float32 by name, before and after the training. What is not in `base` is left out.
        noise_multiplier: Standard deviation of the noise of each element, in clipping norms.

    The noise is seeded by the operating system: the same round trained twice has other noise.
    """
    generator = np.random.default_rng()
    norm = math.sqrt(math.fsum(float(np.square(trained[name] - base[name], dtype=np.float64).sum()) for name in base))
    scale, noisy = min(1.0, clipping_norm / norm) if norm else 1.0, {}
    for name, before in base.items():
        change = scale * (trained[name].astype(np.float64) - before)
        change += generator.normal(0.0, noise_multiplier * clipping_norm, change.shape)
        noisy[name] = (before + change).astype(np.float32)
    return noisy
