"""Labels in, one index array per device out: data split evenly, or as unevenly as devices in the field hold it.

Sources
    McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data", arXiv:1602.05629,
    section 3: the samples sorted by label, cut into shards, and a few shards for each device.
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
    if devices < 1 or not (np.isfinite(alpha) and alpha > 0):
        raise OptionsError(f"devices is {devices} and alpha is {alpha}", advice="Both must be above 0.")
    labels = _whole_numbers(labels, "labels")
    _check_enough(len(labels), devices, max(1, min_per_device))
    generator = np.random.default_rng(seed)
    classes, counts = np.unique(labels, return_counts=True)
    piles = [generator.permutation(np.flatnonzero(labels == c)) for c in classes]
    share = [len(part) for part in np.array_split(labels, devices)]
    return tuple(_fill(piles, alpha * counts / len(labels), n, generator) for n in share)


def evenly(samples: int, devices: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Split that many samples at random: every device sees the same distribution (IID).

    Raises:
        DataError: Fewer samples than devices.
    """
    _check_enough(samples, devices, 1)
    parts = np.array_split(np.random.default_rng(seed).permutation(samples), devices)
    return tuple(np.sort(part) for part in parts)


def by_shards(labels: np.ndarray, devices: int, shards: int = 2, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Sort the samples behind `labels` [N] by label, cut them into devices * shards pieces of equal length, give or
    take one, and deal `shards` of them to each device: most devices then hold `shards` labels.

    Raises:
        OptionsError: No shards.
        DataError: As `by_dirichlet`.
    """
    if shards < 1:
        raise OptionsError(f"shards is {shards}", advice="It must be 1 or more.")
    labels = _whole_numbers(labels, "labels")
    _check_enough(len(labels), devices, shards)
    pieces = np.array_split(np.argsort(labels, kind="stable"), devices * shards)
    dealt = np.random.default_rng(seed).permutation(len(pieces)).reshape(devices, shards)
    return tuple(np.sort(np.concatenate([pieces[k] for k in hand])) for hand in dealt)


def by_group(groups: np.ndarray, devices: int) -> tuple[np.ndarray, ...]:
    """One device for each value of `groups` [N], in ascending order: who wrote, spoke or measured a sample.

    Raises:
        DataError: Another number of values than devices, or no whole numbers.
    """
    groups = _whole_numbers(groups, "groups")
    found, place = np.unique(groups, return_inverse=True)
    if len(found) != devices:
        raise DataError(f"the data has {len(found)} groups for {devices} devices", advice=f"Use {len(found)} devices.")
    order, ends = np.argsort(place, kind="stable"), np.cumsum(np.bincount(place))
    return tuple(np.split(order, ends[:-1]))


def _whole_numbers(array: np.ndarray, what: str) -> np.ndarray:
    array = np.asarray(array)
    if array.ndim != 1 or not len(array) or not np.issubdtype(array.dtype, np.integer):
        raise DataError(
            f"the {what} are {array.dtype} of shape {array.shape}", advice="Pass integers of shape [n], at least one."
        )
    return array


def _check_enough(samples: int, devices: int, each: int) -> None:
    if devices < 1:
        raise OptionsError(f"devices is {devices}", advice="It must be 1 or more.")
    if samples // devices < each:
        raise DataError(
            f"{samples} samples are too few for {devices} devices with {each} each", advice="Use fewer devices."
        )


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
