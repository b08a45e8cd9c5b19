"""A .tflite in, its metric on the samples and its latency beside float32's out, both on LiteRT in agents.

On a shared machine only a ratio holds: every candidate alternates with the float32 file, which stays loaded.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from edgeloop.bundle import Scheme
from edgeloop.convert.calls import in_batches
from edgeloop.convert.samples import Samples
from edgeloop.convert.search.candidate import Measure, MixMeasurement
from edgeloop.convert.search.metric import score, source_score
from edgeloop.runtime.client import RuntimeClient, agent
from edgeloop.runtime.parity.compare import RunContext, classifies, compare, floor_of
from edgeloop.runtime.runners import AGENT_RUNNERS
from edgeloop.runtime_table import LITERT

Arrays = Mapping[str, np.ndarray]
ROUNDS = 8  # turns each of the two files takes
TURN_MS, TURN_RUNS = 50.0, 10  # a turn is 10 calls, or as many as fit into 50 ms


@contextlib.contextmanager
def open_measure(
    float32: bytes,
    signature: str,
    samples: Samples,
    expected: Arrays,
    batch: int | None,
    *,
    min_snr_db: float | None = None,
    timeout_s: float = 120.0,
) -> Iterator[Measure]:
    """A function that measures files of the same signature as `float32`, with float inputs and outputs.

    `expected` {output: [n, ...]} are the source's answers to `samples`; `batch` is the model's own, None if free;
    `min_snr_db` raises the floors as it does in the proof.

    Raises:
        TargetError: LiteRT refuses the float32 file; from the function: the file it is given.
        DeviceError: An agent died, or a call took longer than `timeout_s`.
    """
    device = AGENT_RUNNERS[LITERT.name].device()
    metric = source_score(expected, samples.labels, samples.label_output).metric
    where, classifier = RunContext("candidate", LITERT.name), classifies(expected, samples.labels)
    one = next(samples.batches(batch or 1, fill=batch is not None))
    with tempfile.TemporaryDirectory() as folder, agent(device, LITERT.name, folder, timeout_s) as base:
        Path(folder, "float32.tflite").write_bytes(float32)
        base.prepare("float32.tflite")
        base.run(one, signature, warmup=2)

        def measure(data: bytes, scheme: Scheme) -> MixMeasurement:
            Path(folder, "candidate.tflite").write_bytes(data)
            with agent(device, LITERT.name, folder, timeout_s) as own:
                own.prepare("candidate.tflite")
                got = in_batches(lambda arrays: own.run(arrays, signature).outputs, samples, batch)
                floor = floor_of(scheme, min_snr_db)
                rows = compare(
                    where,
                    floor,
                    expected,
                    got,
                    samples.labels,
                    label_output=samples.label_output,
                    classifier=classifier,
                )
                latency_ms, latency_ratio = _interleaved(own, base, one, signature)
            known = [row.snr_db for row in rows if row.snr_db is not None]
            return MixMeasurement(
                value=score(rows, metric),
                latency_ms=latency_ms,
                latency_ratio=latency_ratio,
                snr_db=min(known, default=None),
                passed=all(row.passed for row in rows),
            )

        yield measure


def _interleaved(own: RuntimeClient, base: RuntimeClient, one: Arrays, signature: str) -> tuple[float, float]:
    """Median milliseconds of one call, and its ratio to float32's."""
    last = own.run(one, signature, warmup=2).wall_ms[0]
    runs = max(1, min(TURN_RUNS, int(TURN_MS / max(last, 1e-3))))
    own_ms: list[float] = []
    base_ms: list[float] = []
    for _ in range(ROUNDS):
        own_ms += own.run(one, signature, runs=runs).wall_ms
        base_ms += base.run(one, signature, runs=runs).wall_ms
    latency_ms = statistics.median(own_ms)
    return latency_ms, latency_ms / statistics.median(base_ms)
