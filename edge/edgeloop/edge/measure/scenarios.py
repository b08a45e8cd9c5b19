"""Times of calls in, the figure that MLPerf Inference ranks a device by out: how queries reach a model, and what of
their times a run of that length supports.

single-stream   the next query when the last one ended, 1 sample each     90th percentile of the queries' latency
multi-stream    the same with 8 samples each                              99th percentile
offline         all samples at once, in one query                         samples per second

The agent runs the loop (its `run`), for a loop on the host would measure the pipe. A percentile is MLPerf's
early-stopping estimate: the lowest latency that, with 99% confidence, is not below the true percentile. With few
queries that is one of the slowest; with too few there is none. MLPerf asks for 600 seconds, and offline for 24,576
samples: a shorter run gives the same figure with less behind it, and none that may be called an MLPerf result.

Sources
    scenarios         https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc#scenarios
    early stopping    the same, appendix "Early Stopping Criterion" (d = 0, c = 0.99), and loadgen/results.cc
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache

import numpy as np

from edgeloop.errors import OptionsError

CONFIDENCE = 0.99
MULTI_STREAM_SAMPLES = 8
MLPERF_DURATION_S = 600.0
MLPERF_OFFLINE_SAMPLES = 24_576


class Driver(Enum):
    """Which program issues the queries of a scenario."""

    EDGELOOP = "edgeloop"
    LOADGEN = "loadgen"


class Scenario(Enum):
    SINGLE_STREAM = "single-stream"
    MULTI_STREAM = "multi-stream"
    OFFLINE = "offline"


PERCENTILES = {Scenario.SINGLE_STREAM: 0.90, Scenario.MULTI_STREAM: 0.99}
METRICS = {
    Scenario.SINGLE_STREAM: "p90_ms",
    Scenario.MULTI_STREAM: "p99_query_ms",
    Scenario.OFFLINE: "samples_per_s",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What one query is on one model.

    Attributes:
        samples: Of the query.
        samples_per_call: The model's batch; the last call of a query may carry samples that do not count.
    """

    scenario: Scenario
    samples: int = 1
    samples_per_call: int = 1

    def __post_init__(self) -> None:
        if self.samples < 1 or self.samples_per_call < 1:
            raise OptionsError(
                f"a query has {self.samples} samples and a call {self.samples_per_call}",
                advice="Both must be 1 or more.",
            )
        if self.scenario is Scenario.SINGLE_STREAM and self.samples != 1:
            raise OptionsError(
                f"a single-stream query has {self.samples} samples", advice="It must have 1, or choose multi-stream."
            )

    @property
    def calls(self) -> int:
        """Calls of the model that answer it."""
        return -(-self.samples // self.samples_per_call)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioResult:
    """The result of one scenario.

    Attributes:
        metric: What `value` is: p90_ms | p99_query_ms (early-stopping estimates) | samples_per_s.
        value: None: fewer queries than `minimum_queries`.
        discarded: The slowest queries that the estimate leaves out; None where there is no estimate.
        percentile_ms: The plain percentile of these queries, whatever it is worth; None: offline.
        duration_s: Spent in queries.
        mlperf_length: As long, and offline as many samples, as MLPerf's rules ask of a result.
        driver: Who issued the queries: `edgeloop`, or LoadGen with its version.
    """

    scenario: str
    metric: str
    value: float | None
    queries: int
    minimum_queries: int
    discarded: int | None
    percentile_ms: float | None
    samples_per_query: int
    samples_per_call: int
    duration_s: float
    mlperf_length: bool
    driver: str = "edgeloop"


def query_of(scenario: Scenario, batch: int | None, samples: int | None = None) -> Query:
    """One query of a scenario on a model whose batch is `batch`, None where it is free.

    A free batch takes a query of several samples whole, or offline 8 of them at a time; a fixed one takes its calls
    one after another. `samples`: of a query; None: 8, offline MLPerf's 24,576.
    """
    if scenario is Scenario.SINGLE_STREAM:
        return Query(scenario=scenario, samples=1 if samples is None else samples, samples_per_call=batch or 1)
    usual = MULTI_STREAM_SAMPLES if scenario is Scenario.MULTI_STREAM else MLPERF_OFFLINE_SAMPLES
    count = usual if samples is None else samples
    return Query(scenario=scenario, samples=count, samples_per_call=batch or min(count, MULTI_STREAM_SAMPLES))


def query_ms(query: Query, wall_ms: Sequence[float], started_s: Sequence[float]) -> list[float]:
    """Latency of each query, from the start of its first call to the end of its last.

    `wall_ms` and `started_s` are those of all calls in order, query after query.
    """
    if query.calls == 1:
        return list(wall_ms)
    ends = [1e3 * start + wall for start, wall in zip(started_s, wall_ms, strict=True)]
    last = range(query.calls - 1, len(ends), query.calls)
    return [ends[k] - 1e3 * started_s[k - query.calls + 1] for k in last]


def scenario_result(query: Query, latencies_ms: Sequence[float], driver: str = "edgeloop") -> ScenarioResult:
    """The scenario's figure for the queries of one run, in any order.

    Raises:
        OptionsError: There is no query.
    """
    if not latencies_ms:
        raise OptionsError(f"{query.scenario.value}: no query was run", advice="Expected 1 or more.")
    queries, duration_s = len(latencies_ms), sum(latencies_ms) / 1e3
    value: float | None
    if query.scenario is Scenario.OFFLINE:
        value, discarded, plain, minimum = query.samples * queries / duration_s, None, None, 1
    else:
        percentile = PERCENTILES[query.scenario]
        over, minimum = overlatency(queries, percentile), minimum_queries(percentile)
        value = sorted(latencies_ms)[queries - over] if over else None
        discarded = over - 1 if over else None
        plain = float(np.percentile(latencies_ms, 100 * percentile, method="higher"))
    long_enough = duration_s >= MLPERF_DURATION_S
    return ScenarioResult(
        scenario=query.scenario.value,
        metric=METRICS[query.scenario],
        value=value,
        queries=queries,
        minimum_queries=minimum,
        discarded=discarded,
        percentile_ms=plain,
        samples_per_query=query.samples,
        samples_per_call=query.samples_per_call,
        duration_s=duration_s,
        mlperf_length=long_enough and (plain is not None or query.samples >= MLPERF_OFFLINE_SAMPLES),
        driver=driver,
    )


def overlatency(queries: int, percentile: float) -> int:
    """The most queries that may be as slow as a bound or slower, where the bound is to hold for `percentile` of all
    queries to come with 99% confidence: the largest t with P(Binomial(queries, 1 - percentile) <= t) <= 1 - 0.99.

    0: so few queries support no bound.
    """
    k = np.arange(queries + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, queries + 1)))])
    choose = factorials[-1] - factorials - factorials[::-1]
    at_most = np.cumsum(np.exp(choose + k * math.log1p(-percentile) + (queries - k) * math.log(percentile)))
    return max(0, int(np.searchsorted(at_most, 1 - CONFIDENCE, side="right")) - 1)


@cache
def minimum_queries(percentile: float) -> int:
    """The fewest that support a percentile: 11 for 0.5, 64 for 0.9, 130 for 0.95, 662 for 0.99."""
    queries = 2
    while overlatency(queries, percentile) < 1:
        queries += 1
    return queries
