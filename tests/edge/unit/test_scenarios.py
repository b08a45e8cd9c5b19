"""MLPerf's scenarios: what a query is, and what of its times a run of that length supports."""

from fractions import Fraction
from math import comb

import pytest

from edgeloop.edge.measure.scenarios import (
    Query,
    Scenario,
    ScenarioResult,
    minimum_queries,
    overlatency,
    query_ms,
    query_of,
    scenario_result,
)
from edgeloop.errors import OptionsError

SINGLE, MULTI, OFFLINE = Scenario


@pytest.mark.parametrize(("percentile", "queries"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.99, 662)])
def test_the_fewest_queries_are_those_of_mlperf(percentile, queries):
    # 64: loadgen says "Need to process at least 64 queries for early stopping"; 662: mlperf.conf's min_query_count
    assert minimum_queries(percentile) == queries
    assert overlatency(queries - 1, percentile) == 0


def exact(queries: int, over: int, percentile: Fraction) -> Fraction:
    """P(Binomial(queries, 1 - percentile) <= over) in whole numbers."""
    q = 1 - percentile
    return sum(comb(queries, k) * q**k * percentile ** (queries - k) for k in range(over + 1))


@pytest.mark.parametrize("queries", [2, 63, 64, 100, 101, 500, 1000])
@pytest.mark.parametrize("percentile", [Fraction(1, 2), Fraction(9, 10), Fraction(99, 100)])
def test_as_many_queries_may_be_slow_as_the_binomial_distribution_allows_and_no_more(queries, percentile):
    over = overlatency(queries, float(percentile))
    bound = Fraction(1, 100)
    if over:
        assert exact(queries, over, percentile) <= bound
    assert exact(queries, over + 1, percentile) > bound


def test_of_100_queries_the_estimate_leaves_out_2():
    # loadgen 6.0.17 on 100 queries: "Would discard 2 highest latency queries"
    found = scenario_result(Query(scenario=SINGLE), [float(ms) for ms in range(100, 0, -1)])
    assert found == ScenarioResult(
        scenario="single-stream",
        metric="p90_ms",
        value=98.0,
        queries=100,
        minimum_queries=64,
        discarded=2,
        percentile_ms=91.0,  # 90 of 100 are below it
        samples_per_query=1,
        samples_per_call=1,
        duration_s=5.05,  # 100 * 101 / 2 ms
        mlperf_length=False,
    )


def test_63_queries_give_no_estimate_and_64_their_slowest():
    times = [1.0] * 63
    assert (
        scenario_result(Query(scenario=SINGLE), times).value,
        scenario_result(Query(scenario=SINGLE), times).discarded,
    ) == (
        None,
        None,
    )
    assert scenario_result(Query(scenario=SINGLE), [*times, 7.0]).value == 7.0


def test_multi_stream_is_the_99th_percentile_of_whole_queries():
    query = query_of(MULTI, batch=1)
    assert (query.samples, query.samples_per_call, query.calls) == (8, 1, 8)
    times = [0.5] * (8 * 662)
    starts = [k * 0.001 for k in range(len(times))]  # a call every millisecond, half of it waiting
    latencies = query_ms(query, times, starts)
    assert len(latencies) == 662
    assert latencies == pytest.approx([7.5] * 662)  # from the first start to the last end: 7 ms and 0.5
    found = scenario_result(query, latencies)
    assert (found.metric, found.discarded, found.minimum_queries) == ("p99_query_ms", 0, 662)
    assert found.value == pytest.approx(7.5)
    assert scenario_result(query, latencies[:661]).value is None


def test_the_calls_of_a_last_query_that_was_broken_off_are_no_query():
    assert len(query_ms(query_of(MULTI, batch=1), [1.0] * 15, [0.0] * 15)) == 1


def test_offline_is_samples_over_the_time_from_the_first_start_to_the_last_end():
    query = query_of(OFFLINE, batch=4, samples=10)
    assert query.calls == 3
    (latency,) = query_ms(query, [100.0, 100.0, 200.0], [5.0, 5.2, 5.3])
    assert latency == pytest.approx(500.0)
    found = scenario_result(query, [latency])
    assert found.value == pytest.approx(20.0)  # 10 samples in 0.5 s; the 2 that filled the last call do not count
    assert (found.metric, found.percentile_ms, found.discarded, found.minimum_queries) == (
        "samples_per_s",
        None,
        None,
        1,
    )


@pytest.mark.parametrize(
    ("scenario", "batch", "samples", "expected"),
    [
        (SINGLE, 1, None, (1, 1, 1)),
        (SINGLE, None, None, (1, 1, 1)),
        (SINGLE, 4, None, (1, 4, 1)),  # samples, of a call, calls: the batch is filled with what does not count
        (MULTI, 3, None, (8, 3, 3)),
        (MULTI, None, None, (8, 8, 1)),  # a free batch takes the query whole
        (MULTI, None, 5, (5, 5, 1)),
        (OFFLINE, 1, None, (24576, 1, 24576)),
        (OFFLINE, None, 100, (100, 8, 13)),
        (OFFLINE, None, 3, (3, 3, 1)),
    ],
)
def test_a_query_fits_the_batch_of_the_model(scenario, batch, samples, expected):
    query = query_of(scenario, batch, samples)
    assert (query.samples, query.samples_per_call, query.calls) == expected


@pytest.mark.parametrize(
    ("query", "ms", "long"),
    [
        (Query(scenario=SINGLE), [300_000.0, 300_000.0], True),  # MLPerf: 600 s
        (Query(scenario=SINGLE), [300_000.0, 299_999.0], False),
        (Query(scenario=OFFLINE, samples=24_576), [600_000.0], True),
        (Query(scenario=OFFLINE, samples=24_575), [600_000.0], False),
        (Query(scenario=OFFLINE, samples=24_576), [599_999.0], False),
    ],
)
def test_a_run_shorter_than_mlperfs_says_so(query, ms, long):
    assert scenario_result(query, ms).mlperf_length is long


def test_contradictions_are_refused():
    with pytest.raises(OptionsError, match="a single-stream query has 8 samples"):
        query_of(SINGLE, 1, samples=8)
    with pytest.raises(OptionsError, match="Both must be 1 or more"):
        Query(scenario=OFFLINE, samples=0)
    with pytest.raises(OptionsError, match="Both must be 1 or more"):
        Query(scenario=OFFLINE, samples_per_call=0)
    with pytest.raises(OptionsError, match="no query was run"):
        scenario_result(Query(scenario=SINGLE), [])
