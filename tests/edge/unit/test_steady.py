"""Series made by hand: which are steady, from where, and what is said of those that are not."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from edgeloop.edge.measure.steady_state import change_point, find_steady_state

BLOCK = 5
RUNS = np.arange(130)
SERIES = 100


def noise(rng, sigma=0.01):
    return 5.0 * np.exp(sigma * rng.standard_normal(len(RUNS)))


def found(shape, sigma=0.01):
    """Of 100 series of this shape, 5 ms with noise of 1%: where they are steady from, None if not."""
    rng = np.random.default_rng(1)
    return [find_steady_state(noise(rng, sigma) * shape(rng), BLOCK) for _ in range(SERIES)]


def test_a_flat_series_is_steady_from_its_first_run():
    starts = Counter(s.start for s in found(lambda rng: 1.0))
    # a test at 5% may cut 5 of 100 short
    assert starts[0] >= 90 and None not in starts


def test_heavy_tails_do_not_make_a_series_unsteady():
    assert all(s.reached for s in found(lambda rng: 1 + (rng.random(len(RUNS)) < 0.1) * rng.pareto(1.5, len(RUNS))))


def test_a_series_that_warms_up_is_steady_once_it_is_warm():
    # 50% slower at first, a factor e less every 8 runs: below 2% of noise-free time after 8 ln 25 = 26 runs
    starts = [s.start for s in found(lambda rng: 1 + 0.5 * np.exp(-RUNS / 8))]
    assert sum(start is not None and 20 <= start <= 60 for start in starts) >= 95


def test_a_step_in_the_first_half_is_where_the_steady_state_begins():
    starts = [s.start for s in found(lambda rng: np.where(RUNS < 40, 1.0, 1.2))]
    assert sum(start == 40 for start in starts) >= 90


@pytest.mark.parametrize("at", [70, 95, 105])
def test_after_a_step_in_the_second_half_too_little_is_left_to_call_steady(at):
    assert sum(s.reached for s in found(lambda rng: np.repeat([1.0, 1.2], [at, len(RUNS) - at]))) <= 5


def test_a_small_late_step_within_the_tolerance_is_still_a_change():
    # 1.6%, so every window is within 2% of every other, under noise of 0.2%: only the change-point test can see it
    steps = found(lambda rng: np.where(RUNS < 95, 1.0, 1.016), sigma=0.002)
    assert not any(s.reached for s in steps)
    assert sum("change by +2% at run 95" in s.why for s in steps) >= 90  # some place it a turn off


def test_a_step_too_small_to_matter_is_seen_and_not_counted():
    assert all(s.reached for s in found(lambda rng: np.where(RUNS < 95, 1.0, 1.005), sigma=0.001))


def test_a_slow_drift_is_never_steady():
    assert sum(s.reached for s in found(lambda rng: np.linspace(1.0, 1.1, len(RUNS)))) <= 2


@pytest.mark.parametrize(
    "shape",
    [
        lambda rng: np.where(RUNS // BLOCK % 2, 1.1, 1.0),
        lambda rng: np.where(RUNS // BLOCK % 5 > 2, 1.1, 1.0),  # three turns in a row agree, and so do 60% of all
        lambda rng: 1 + 0.1 * np.sin(RUNS / 35 * 2 * np.pi),
    ],
    ids=["every other turn", "two of five turns", "sine of seven turns"],
)
def test_a_periodic_series_is_never_steady(shape):
    series = found(shape)
    assert not any(s.reached for s in series)
    assert all("within 2%" in s.why for s in series)


def test_too_few_runs_are_said_to_be_too_few():
    s = find_steady_state([1.0] * 49, BLOCK)
    assert (s.reached, s.start) == (False, None) and "49 runs are too few" in s.why
    assert find_steady_state([1.0] * 50, BLOCK).reached


def test_one_slow_turn_is_one_change_and_not_five():
    """A turn that waited for another program shifts all of its runs; it is no change point, and no outlier to drop."""
    slow = np.where(RUNS // BLOCK == 20, 2.0, 1.0)
    assert sum(s.reached for s in found(lambda rng: slow)) >= 95


def test_p_of_a_change_point_is_that_of_all_orders():
    """8 values have 40,320 orders: a clean step in the middle, and its mirror image, are 2 * 4! * 4! of them."""
    p, at = change_point(np.array([1.0, 2, 3, 4, 11, 12, 13, 14]))
    exact = 2 * 24 * 24 / 40320
    # 1,999 random orders of these: one standard deviation is 0.4%
    assert at == 4 and p == pytest.approx(exact, abs=0.015)


def test_the_statistic_is_largest_where_the_ranks_part():
    values = np.array([1.0, 2, 3, 4, 5])
    later = [change_point(np.array(order))[1] for order in permutations(values) if set(order[:2]) == {4.0, 5.0}]
    assert set(later) == {2}
    p, _ = change_point(np.ones(20))
    assert p == 1.0
