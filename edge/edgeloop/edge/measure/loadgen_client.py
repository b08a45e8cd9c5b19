"""A loaded model in, the same figure as ours out, by MLPerf's own LoadGen: an optional driver, and the check of ours.

LoadGen runs on the device (runtime/agent/loadgen.py), so that neither driver measures a pipe. Its
clock starts before and stops after ours by what it costs to call a Python function, some microseconds.

Source: https://github.com/mlcommons/inference/tree/master/loadgen
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeloop.edge.measure.scenarios import Query, Scenario, ScenarioResult, scenario_result
from edgeloop.errors import DeviceError, TargetError
from edgeloop.processes.frames import pack, unpack
from edgeloop.runtime.agent.protocol import LoadgenRequest
from edgeloop.runtime.client import RuntimeClient

ESTIMATES = {Scenario.SINGLE_STREAM: "early_stopping_latency_ss", Scenario.MULTI_STREAM: "early_stopping_latency_ms"}
PLAIN = {
    Scenario.SINGLE_STREAM: "result_90.00_percentile_latency_ns",
    Scenario.MULTI_STREAM: "result_99.00_percentile_per_query_latency_ns",
}


@dataclass(frozen=True)
class LoadgenRun:
    """One test run of LoadGen. Times are of each query in order: its own, ours of the same queries, CPU time."""

    outcome: ScenarioResult
    query_ms: tuple[float, ...]
    own_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]


def measure_with_loadgen(
    agent: RuntimeClient, inputs: Mapping[str, np.ndarray], signature: str | None, query: Query, queries: int
) -> LoadgenRun:
    """Let LoadGen issue `queries` queries (offline: one) to the model that the agent has loaded.

    `inputs` have `query.samples_per_call` samples. The figures of the outcome are LoadGen's own.

    Raises:
        MissingExtra: The device's Python has no mlcommons-loadgen.
        TargetError: The model fails on these inputs.
        DeviceError: The agent died or did not answer in time.
    """
    request = LoadgenRequest(signature, query.scenario.value, queries, query.samples, query.calls)
    answer, payload = agent.request(request, pack(inputs), TargetError)
    try:
        times = {name: tuple(map(float, values)) for name, values in unpack(payload).items()}
        value, plain = _figures(query, answer.results)
        ours = scenario_result(query, times["query_ms"], f"loadgen {answer.version}")
        theirs = replace(ours, value=value, percentile_ms=plain)
        return LoadgenRun(theirs, times["query_ms"], times["own_ms"], times["cpu_ms"])
    except (KeyError, TypeError, ValueError) as e:
        raise DeviceError(
            f"LoadGen's result is not that of version 6.0 ({type(e).__name__}: {e})",
            advice="Install mlcommons-loadgen 6.",
            where=agent.where,
        ) from e


def _figures(query: Query, results: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """`value` and `percentile_ms` as LoadGen has them."""
    if query.scenario is Scenario.OFFLINE:
        return float(results["result_samples_per_second"]), None
    estimate = results[ESTIMATES[query.scenario]] / 1e6 if results["early_stopping_met"] else None
    return estimate, results[PLAIN[query.scenario]] / 1e6
