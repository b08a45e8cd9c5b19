"""Labels in, one index array per device out: data split as unevenly as devices in the field hold it.

Sources
    Hsu, Qi, Brown 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
    Classification", arXiv:1909.06335, section 2: each device's label distribution is drawn from Dir(alpha * prior).
Flower keeps its partitioners in flwr-datasets, which brings its own data loaders; `flwr` itself has none.
"""

from __future__ import annotations

import numpy as np

from edgeloop.errors import DataError, OptionsError


def by_dirichlet(
    labels: np.ndarray, devices: int, alpha: float, seed: int = 0, min_per_device: int = 1
) -> tuple[np.ndarray, ...]:
    """Split the samples behind `labels` [N] over `devices`; every index appears exactly once, sorted within a device.

    Devices get N / devices samples each, give or take one. Each draws its label distribution q ~ Dir(alpha * p),
    p being the labels' own distribution: alpha = 100 is close to independent and identical, alpha = 0.1 leaves few
    labels per device. A device fills its share by sampling labels from q without replacement; q is renormalized over
    the labels that are left, so later devices take what earlier ones did not want.

    Raises:
        OptionsError: No devices, or an alpha that is no positive number.
        DataError: Labels that are not a non-empty [N] of integers, or fewer than min_per_device for a device.
    """
    labels = np.asarray(labels)
    if devices < 1 or not (np.isfinite(alpha) and alpha > 0):
        raise OptionsError(f"devices is {devices} and alpha is {alpha}", advice="Both must be above 0.")
    if labels.ndim != 1 or not len(labels) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"the labels are {labels.dtype} of shape {labels.shape}", advice="Pass integers of shape [n], at least one."
        )
    if len(labels) // devices < max(1, min_per_device):
        raise DataError(
            f"{len(labels)} samples are too few for {devices} devices with {max(1, min_per_device)} each",
            advice="Use fewer devices.",
        )
    generator = np.random.default_rng(seed)
    classes, counts = np.unique(labels, return_counts=True)
    piles = [generator.permutation(np.flatnonzero(labels == c)) for c in classes]
    share = [len(part) for part in np.array_split(labels, devices)]
    return tuple(_fill(piles, alpha * counts / len(labels), n, generator) for n in share)


def _fill(piles: list[np.ndarray], concentration: np.ndarray, n: int, generator: np.random.Generator) -> np.ndarray:
    """Take `n` indices off the piles by labels drawn from q; a pile that runs out is drawn from no more."""
    taken: list[np.ndarray] = []
    q = generator.dirichlet(concentration)
    while n:
        left = np.array([len(pile) for pile in piles])
        p = np.where(left > 0, q, 0.0)
        if p.sum() < 1e-9:  # every label this device wants is used up: it comes to want others
            q = np.zeros(len(piles))
            q[left > 0] = generator.dirichlet(concentration[left > 0])
            continue
        counts = np.minimum(generator.multinomial(n, p / p.sum()), left)
        for label, count in enumerate(counts):
            taken.append(piles[label][:count])
            piles[label] = piles[label][count:]
        n -= int(counts.sum())
    return np.sort(np.concatenate(taken))
