"""Percentiles of few runs, and ratios of turns: against the binomial formula and experiments whose ratio is known."""

from math import comb

import numpy as np
import pytest

from edgeloop.edge.measure.ratios import paired, unpaired
from edgeloop.edge.measure.statistics import percentile_interval, turn_medians
from edgeloop.edge.on_device.percentiles import FEWEST_RUNS, percentile


@pytest.mark.parametrize(("q", "runs"), FEWEST_RUNS.items())
def test_the_fewest_runs_are_mlperfs_by_the_binomial_formula(q, runs):
    """One run may be slower than the percentile; that it is still one must be 99% sure."""

    def doubt(n):  # P(Binomial(n, q) >= n - 1): all runs, or all but one, below a bound that is no percentile
        p = q / 100
        return p**n + comb(n, 1) * p ** (n - 1) * (1 - p)

    assert doubt(runs) <= 0.01 < doubt(runs - 1)
    assert FEWEST_RUNS == {50: 11, 90: 64, 95: 130, 99: 662}  # as the rules' appendix has them


@pytest.mark.parametrize(("q", "runs"), FEWEST_RUNS.items())
def test_a_percentile_is_given_from_the_fewest_runs_on_and_not_before(q, runs):
    assert percentile([1.0] * (runs - 1), q) is None
    assert percentile([1.0] * runs, q) == 1.0


def test_a_percentile_is_a_time_that_was_measured():
    # of 64 times 1, 2, ..., 64: position 0.9 * 63 = 56.7, so the 58th
    assert percentile([float(t) for t in range(1, 65)], 90) == 58.0
    assert percentile([1.0] * 6 + [3.0] * 6, 50) == 3.0  # never 2


@pytest.mark.parametrize("runs", [64, 100, 200, 1000])
def test_the_interval_of_a_percentile_is_between_the_ranks_of_the_binomial_formula(runs):
    """The tightest ranks outside of which 2.5% or less lie on each side."""

    def at_most(k):
        return sum(comb(runs, i) * 0.9**i * 0.1 ** (runs - i) for i in range(k + 1))

    low, high = percentile_interval([float(k) for k in range(1, runs + 1)], 90)  # each time is its own rank
    assert at_most(int(low) - 1) <= 0.025 < at_most(int(low))
    assert at_most(int(high) - 2) < 0.975 <= at_most(int(high) - 1)


def test_the_interval_of_a_percentile_holds_it_in_95_of_100_experiments():
    rng = np.random.default_rng(5)
    true = -np.log(0.1)  # of an exponential distribution
    intervals = [percentile_interval(rng.exponential(size=100).tolist(), 90) for _ in range(1000)]
    held = sum(low <= true <= high for low, high in intervals)
    assert held > 950 - 3 * np.sqrt(1000 * 0.95 * 0.05)


def test_there_is_no_interval_where_there_is_no_percentile():
    assert percentile_interval([1.0] * 63, 90) is None
    assert percentile_interval([1.0] * 64, 90) == (1.0, 1.0)


def test_turn_medians_leave_out_a_last_shorter_turn_alone():
    np.testing.assert_array_equal(turn_medians([1, 2, 9, 4, 5, 6, 7, 8], 3), [2, 5])


KNOWN = 1.3
EXPERIMENTS = 300
# Of 300 intervals that hold the ratio with 95% each, 269 or fewer hold it once in 15,000 times, 298 or more once in
# 20,000: what the bounds catch is an interval that is too narrow (below 90%) or says nothing (above 99%).
FEWEST_HITS, MOST_HITS = 270, 297


def turns(rng, n, kind):
    """Medians of five runs with 3% noise, around 1."""
    runs = np.exp(0.03 * rng.standard_normal((n, 5)))
    if kind == "heavy tails":
        runs *= 1 + (rng.random((n, 5)) < 0.1) * rng.pareto(1.5, (n, 5))
    if kind == "two speeds":
        runs *= np.where(rng.random((n, 1)) < 0.35, 0.88, 1.0)
    return np.median(runs, axis=1)


@pytest.mark.parametrize("kind", ["heavy tails", "two speeds", "shared drift"])
def test_the_interval_of_a_paired_ratio_holds_it_in_95_of_100_experiments(kind):
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(EXPERIMENTS):
        drift = np.exp(np.cumsum(0.03 * rng.standard_normal(20))) if kind == "shared drift" else 1.0
        found = paired(KNOWN * drift * turns(rng, 20, kind), drift * turns(rng, 20, kind))
        hits += found.low <= KNOWN <= found.high
    assert FEWEST_HITS <= hits <= MOST_HITS


def test_the_interval_of_an_unpaired_ratio_holds_it_in_95_of_100_experiments():
    rng = np.random.default_rng(8)
    hits = 0
    for _ in range(EXPERIMENTS):
        found = unpaired(KNOWN * turns(rng, 20, "plain"), turns(rng, 26, "plain"))
        hits += found.low <= KNOWN <= found.high
    assert FEWEST_HITS <= hits <= MOST_HITS


def test_what_slowed_both_down_is_gone_from_a_paired_ratio_and_stays_in_an_unpaired_one():
    slow = np.where(np.arange(20) < 10, 1.0, 3.0)  # another program came
    of, to = 1.5 * slow, slow
    both = paired(of, to)
    assert [both.ratio, both.low, both.high] == pytest.approx([1.5] * 3)
    apart = unpaired(of, to)
    assert apart.low < 1 < 2 < apart.high


def test_the_same_seed_gives_the_same_interval_and_another_one_another():
    rng = np.random.default_rng(0)
    of, to = turns(rng, 20, "plain"), turns(rng, 20, "plain")
    assert paired(of, to, seed=1) == paired(of, to, seed=1) != paired(of, to, seed=2)


def test_an_interval_of_too_few_turns_is_not_given():
    few = np.linspace(1.0, 2.0, 9)
    assert (paired(few, few).ratio, paired(few, few).low, paired(few, few).high) == (1.0, None, None)
    assert unpaired(np.linspace(1.0, 2.0, 50), few).low is None
    enough = np.linspace(1.0, 2.0, 10)
    assert paired(enough, enough).low == 1.0
