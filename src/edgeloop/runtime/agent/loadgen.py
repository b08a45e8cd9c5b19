"""MLPerf's LoadGen issues the queries, beside the model: one test run of a model that an agent has loaded.

Python 3.9 syntax; needs mlcommons-loadgen, which has wheels for x86-64 Linux.
Source: https://github.com/mlcommons/inference/blob/master/loadgen/README.md
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeloop.errors import MissingExtra
from edgeloop.leftovers import temporary_folder

SCENARIOS = {"single-stream": "SingleStream", "multi-stream": "MultiStream", "offline": "Offline"}
SAMPLE = re.compile(r'"query_seq":(\d+),.*"issue_start_ns":(\d+),"complete_ns":(\d+)')
PREFIX = ":::MLLOG "


def drive(
    call: Callable[[], object], scenario: str, queries: int, samples: int, calls: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Run `queries` queries of `samples` samples each; `calls` calls answer one. Offline has one query.

    Returns:
        {version, results: {"result_...", "early_stopping_...": LoadGen's own figures}}, and of each query in order
        {query_ms: by LoadGen's clock, own_ms: by ours around the calls alone, cpu_ms}, float64.

    Raises:
        MissingExtra: LoadGen is not installed there.
        Exception: What `call` raised; the calls after it were left out.
    """
    try:
        import mlperf_loadgen as loadgen
    except ImportError as e:
        raise MissingExtra(
            f"LoadGen does not load ({e})", advice="Run there: pip install mlcommons-loadgen (x86-64)"
        ) from e
    own_ms: list[float] = []
    cpu_ms: list[float] = []
    failures: list[Exception] = []

    def answer(asked: Any) -> None:
        cpu = time.process_time_ns()
        wall = time.perf_counter_ns()
        try:
            for _ in range(0 if failures else calls):
                call()
        except Exception as e:  # through LoadGen's C++ it would end the process without a word
            failures.append(e)
        own_ms.append((time.perf_counter_ns() - wall) / 1e6)
        cpu_ms.append((time.process_time_ns() - cpu) / 1e6)
        loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample.id, 0, 0) for sample in asked])

    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, SCENARIOS[scenario])
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.multi_stream_samples_per_query = samples
    settings.min_query_count = settings.max_query_count = samples if scenario == "offline" else queries
    settings.min_duration_ms = 0  # as many queries as were asked for, however long they take
    with temporary_folder() as folder:
        _test(loadgen, answer, settings, folder)
        if failures:
            raise failures[0]
        version, results = _summary(os.path.join(folder, "mlperf_log_detail.txt"))
        query_ms = _latencies(os.path.join(folder, "mlperf_log_trace.json"))
    times = {"query_ms": query_ms, "own_ms": own_ms, "cpu_ms": cpu_ms}
    return {"version": version, "results": results}, {name: np.array(values) for name, values in times.items()}


def _test(loadgen: Any, answer: Callable[[Any], None], settings: Any, folder: str) -> None:
    """One test run; its logs go to `folder`."""
    logs = loadgen.LogSettings()
    logs.log_output = loadgen.LogOutputSettings()
    logs.log_output.outdir = folder
    # one sample in its library: every call has the inputs that the agent's `run` would give it
    library = loadgen.ConstructQSL(1, 1, _nothing, _nothing)
    system = loadgen.ConstructSUT(answer, _nothing)
    try:
        # a file that does not exist: LoadGen would else take an audit.config of the current folder for its own
        loadgen.StartTestWithLogSettings(system, library, settings, logs, os.path.join(folder, "none"))
    finally:
        loadgen.DestroySUT(system)
        loadgen.DestroyQSL(library)


def _nothing(*_: Any) -> None:
    """There is nothing to load and nothing to flush."""


def _summary(path: str) -> tuple[str, dict[str, Any]]:
    """LoadGen's version, and what it says of the run."""
    entries = {}
    with open(path) as log:
        for line in log:
            if line.startswith(PREFIX):
                entry = json.loads(line[len(PREFIX) :])
                entries[entry["key"]] = entry["value"]
    results = {key: value for key, value in entries.items() if key.startswith(("result_", "early_stopping_"))}
    return entries["loadgen_version"].partition(" ")[0], results


def _latencies(path: str) -> list[float]:
    """Of each query in order: from its issue to the completion of its last sample."""
    found: dict[int, float] = {}
    with open(path) as trace:
        for line in trace:
            sample = SAMPLE.search(line)
            if sample:
                query, issued, complete = map(int, sample.groups())
                found[query] = max(found.get(query, 0.0), (complete - issued) / 1e6)
    return [found[query] for query in sorted(found)]
