"""Splitting data over devices, held to what a Dirichlet split promises."""

import numpy as np
import pytest

from edgeloop.errors import DataError, OptionsError
from edgeloop.federated.simulation.partition import by_dirichlet

LABELS = np.repeat(np.arange(10), 100)  # ten classes of a hundred


def counts_per_class(parts) -> np.ndarray:
    return np.array([np.bincount(LABELS[part], minlength=10) for part in parts])


@pytest.mark.parametrize("alpha", [1e-4, 0.1, 1.0, 1e6])
@pytest.mark.parametrize("devices", [1, 3, 7])
def test_every_index_goes_to_exactly_one_device(devices, alpha):
    parts = by_dirichlet(LABELS, devices, alpha)
    assert sorted(np.concatenate(parts)) == list(range(1000))
    assert {len(part) for part in parts} <= {1000 // devices, 1000 // devices + 1}


def test_a_huge_alpha_gives_every_device_the_same_mix():
    # 200 draws at p = 0.1: mean 20, standard deviation sqrt(200 * .1 * .9) = 4.2; six of them are 26
    counts = counts_per_class(by_dirichlet(LABELS, 5, 1e6, seed=3))
    assert np.abs(counts - 20).max() < 26


def test_a_tiny_alpha_gives_a_device_one_label_at_a_time():
    # five devices of 200 over piles of 100: whoever comes first gets whole piles, two each
    counts = counts_per_class(by_dirichlet(LABELS, 5, 1e-4, seed=3))
    assert ((counts > 0).sum(axis=1) == 2).all()


def test_the_seed_decides_the_split():
    first, same, other = (by_dirichlet(LABELS, 4, 0.5, seed=seed) for seed in (7, 7, 8))
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("labels", "devices", "alpha", "least", "error", "says"),
    [
        (LABELS, 0, 1.0, 1, OptionsError, "devices is 0"),
        (LABELS, 2, 0.0, 1, OptionsError, "alpha is 0.0"),
        (LABELS, 2, float("nan"), 1, OptionsError, "alpha is nan"),
        (LABELS[:3], 4, 1.0, 1, DataError, "3 samples are too few for 4 devices"),
        (LABELS, 4, 1.0, 251, DataError, "4 devices with 251 each"),
        (LABELS[:0], 1, 1.0, 1, DataError, r"shape \(0,\)"),
        (LABELS.astype(float), 2, 1.0, 1, DataError, "float64"),
    ],
)
def test_a_split_that_cannot_be_is_refused(labels, devices, alpha, least, error, says):
    with pytest.raises(error, match=says):
        by_dirichlet(labels, devices, alpha, min_per_device=least)


def test_which_samples_of_a_label_a_device_gets_is_drawn_too():
    first, second = by_dirichlet(np.zeros(1000, int), 2, 1.0)
    # unshuffled, the first device would hold 0 to 499 and none above; drawn, about half, sd sqrt(1000) / 4 = 8
    assert 200 < np.sum(first < 500) < 300 and len(second) == 500
