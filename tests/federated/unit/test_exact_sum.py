"""The exact sum, against sums of fractions: every bit, in any order."""

from fractions import Fraction

import numpy as np
import pytest

from edgeloop.errors import DataError
from edgeloop.federated.rounds.aggregation.exact_sum import LARGEST_WEIGHT, ExactSum


def nearest(value: Fraction) -> np.float32:
    """The nearest float32, ties to even, by trying the neighbours of a first guess."""
    guess = np.float32(float(value))
    near = [np.nextafter(guess, np.float32(side)) for side in (-np.inf, np.inf)] + [guess]
    best = min(abs(Fraction(float(x)) - value) for x in near if np.isfinite(x))
    closest = [x for x in near if np.isfinite(x) and abs(Fraction(float(x)) - value) == best]
    return min(closest, key=lambda x: int(np.float32(x).view(np.uint32)) & 1) + np.float32(0)


def by_fractions(arrays, weights) -> np.ndarray:
    total = sum(weights)
    return np.array(
        [
            nearest(sum(Fraction(float(a[k])) * n for a, n in zip(arrays, weights, strict=True)) / total)
            for k in range(arrays[0].size)
        ],
        np.float32,
    )


def mean(arrays, weights, order=None) -> np.ndarray:
    exact = ExactSum(arrays[0].shape)
    for k in range(len(arrays)) if order is None else order:
        exact.add(arrays[k], weights[k])
    assert (exact.total, exact.count) == (sum(weights), len(weights))
    return exact.mean()


KINDS = {
    "one scale": lambda rng, n: rng.normal(size=n),
    "every magnitude": lambda rng, n: rng.normal(size=n) * 10.0 ** rng.integers(-44, 38, n),
    "often a tie": lambda rng, n: 2.0**23 + rng.integers(0, 9, n),
    "subnormal": lambda rng, n: rng.integers(-5, 6, n) * 2.0**-149,
    "mostly zero": lambda rng, n: rng.normal(size=n) * (rng.random(n) < 0.1),
    "far apart": lambda rng, n: rng.choice([1e30, -1e30, 1.0, 1e-30], n),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_mean_is_the_nearest_float32_of_the_exact_one_in_any_order(kind):
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 8, 9, 21):
        arrays = [KINDS[kind](rng, 12).astype(np.float32) for _ in range(count)]
        largest = LARGEST_WEIGHT if count % 2 else 4
        weights = [int(n) for n in rng.integers(1, largest, count, endpoint=True)]
        expected = by_fractions(arrays, weights)
        for _ in range(3):
            found = mean(arrays, weights, rng.permutation(count))
            assert found.tobytes() == expected.tobytes()


def test_what_cancels_leaves_the_small_rest():
    big, small = np.array([3e38], np.float32), np.array([1e-45], np.float32)  # 1e-45 is the smallest float32
    found = mean([big, small, -big, small], [1, 1, 1, 1])
    assert found == np.float32(0)  # 2 * 2^-149 / 4 is a tie between 0 and 2^-149: even
    assert mean([big, small, -big, small], [1, 3, 1, 3]).view(np.uint32) == 1  # 6/8 of 2^-149


def test_many_arrays_of_growing_size_keep_every_bit():
    arrays = [np.array([2.0**k, 3.0 * 2.0 ** -(k % 90)], np.float32) for k in range(100)]
    assert mean(arrays, [7] * 100).tobytes() == by_fractions(arrays, [7] * 100).tobytes()


def test_the_parts_of_a_large_array_fit_together():
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=(3, 12_345)).astype(np.float32) for _ in range(3)]
    found = mean(arrays, [1, 2, 3])
    assert found.shape == (3, 12_345)
    for k in (0, 16_383, 16_384, 32_767, 32_768, 37_034):
        flat = [a.ravel()[k : k + 1] for a in arrays]
        assert found.ravel()[k] == by_fractions(flat, [1, 2, 3])[0]


def test_equal_arrays_give_themselves():
    array = np.random.default_rng(2).normal(size=1000).astype(np.float32)
    assert mean([array] * 7, [13, 1, 5, 7, 600, 2, 3]).tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("array", "weight", "says"),
    [
        (np.zeros(2), 1, "float64"),
        (np.zeros((1, 2), np.float32), 1, r"\(1, 2\)"),
        (np.zeros((), np.float32), 1, r"\(\)"),
        (np.zeros(2, np.float32), 0, "weight is 0"),
        (np.zeros(2, np.float32), 2.0, "weight is 2.0"),
        (np.zeros(2, np.float32), LARGEST_WEIGHT + 1, "weight is 536870912"),
        (np.array([0, np.nan], np.float32), 1, "NaN or infinity"),
        (np.array([0, np.inf], np.float32), 1, "NaN or infinity"),
    ],
)
def test_what_cannot_be_added_is_refused(array, weight, says):
    exact = ExactSum((2,))
    with pytest.raises(DataError, match=says):
        exact.add(array, weight)
        exact.mean()


def test_a_mean_of_nothing_is_refused():
    with pytest.raises(DataError, match="nothing to average"):
        ExactSum((2,)).mean()
