"""The records of a measurement, and the JSON document of `bench --json` and `bench -o` made of them.

A time is one invoke of the runtime in milliseconds, its inputs in place before and its outputs taken out after; a size
is in bytes. A value that a device cannot tell is "unknown", one that too few runs support is None. No sample is ever
left out. Times lie on shared machines: compare those of one plan with each other, for they took turns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edgeloop.atomic import write_file
from edgeloop.edge.measure.scenarios import ScenarioResult

Unknown = Literal["unknown"]
Reading = Mapping[str, Any]  # what the agent's `conditions` answered: a value or "unknown" by name


@dataclass(frozen=True, slots=True, kw_only=True)
class SteadyState:
    """Whether the times settled.

    Attributes:
        start: Index into `wall_ms` of the first steady run ("from" in JSON); None: not reached.
        why: One sentence: what was seen.
    """

    reached: bool
    start: int | None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionRecord:
    """Of the device: before the first turn, between turns (in order), and after the last."""

    before: Reading
    during: tuple[Reading, ...]
    after: Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """One variant on one runtime of one device.

    Attributes:
        bytes: Size of the variant's files; `sha256` is that of the one that was loaded.
        device: Its label: neither who nor where on a disk.
        delegate: Its name, or its library's; `delegated`: indices of the operators that it took. None: no delegate.
        scenario: How queries came (scenarios.py); `outcome`: what its rules make of all n runs.
        batch: Samples of one call.
        input_shapes: Of the inputs of one call, by name.
        assumed_sizes: Inputs whose free sizes, besides the batch, were taken as 1: nobody said another.
        cpus: Of the device; None: unknown.
        n: Measured runs, `len(wall_ms)`.
        warmup: Calls before them; theirs are `warmup_ms`, the very first is `first_ms`.
        block: Runs of one turn: runs k * block to (k + 1) * block - 1 followed each other, then came the other pairs.
        p50_ms: Percentiles of the steady runs, or of all n where no steady state was reached; None: too few of them.
        p90_interval_ms: Where the 90th percentile of all runs to come lies with 95% confidence; None as p90_ms.
        percentile_runs: How many runs these percentiles are of.
        cpu_p50_ms: Median CPU time of a run, all threads of the agent together, of the same runs; None as p50_ms, and
            of a page, which does not see its process: then `cpu_ms` is empty.
        wall_over_cpu: Wall time of these runs together over their CPU time.
        contended: They waited for something else: wall over CPU time is above 1.1. With several threads a false would
            prove nothing, for one core's wait hides behind another one's work: then it is "unknown".
        involuntary_switches: How often the kernel took the CPU away during all turns; None: unknown.
        rss_bytes: Of the agent after the last turn. `rss_peak_bytes`: the highest ever.
        arena_bytes: Memory the runtime planned for tensors.
        valid: False: the times mean nothing, for the reason in `invalid_because`.
        functional_only: The device is emulated: its outputs are real, its times are not.
        entry_ms: The calls that begin each turn, which find the caches as other pairs left them; not in any figure.
        started_s: When each of the n runs began, in seconds since the plan did: within a record by the device's clock,
            which is set by the asking machine's to what one question takes to travel.
        profile: Per operator, as profile.py gives it; None: not asked for, or no profiler there.
    """

    variant: str
    format: str
    bytes: int
    sha256: str
    runtime: str
    runtime_version: str
    device: str
    threads: int
    delegate: str | None
    delegated: tuple[int, ...] | None
    scenario: str
    outcome: ScenarioResult
    batch: int
    input_shapes: Mapping[str, tuple[int, ...]]
    assumed_sizes: tuple[str, ...]
    cpus: int | None
    n: int
    warmup: int
    block: int
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    p90_interval_ms: tuple[float, float] | None
    percentile_runs: int
    cpu_p50_ms: float | None
    import_ms: float
    load_ms: float
    first_ms: float
    steady: SteadyState
    wall_over_cpu: float | Unknown
    contended: bool | Unknown
    involuntary_switches: int | None
    rss_peak_bytes: int | None
    rss_bytes: int | None
    arena_bytes: int | Unknown
    conditions: ConditionRecord
    valid: bool
    invalid_because: str | None
    functional_only: bool
    warmup_ms: tuple[float, ...]
    entry_ms: tuple[float, ...]
    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]
    started_s: tuple[float, ...]
    profile: tuple[Mapping[str, Any], ...] | None = None

    def to_json(self) -> dict[str, Any]:
        document = asdict(self)
        document["steady"]["from"] = document["steady"].pop("start")
        return document


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Names a record within its document."""

    variant: str
    runtime: str
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A ratio of times with its 95% interval; above 1: `of` takes longer than `to`. None: too few turns for one."""

    ratio: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Time of `of` over time of `to`, turn by turn.

    Attributes:
        cpu: None: the device's CPU clock is too coarse for these runs.
        n: Turns that both took side by side, and where both are steady if they ever are.
        valid: Both records are.
        functional_only: One of them is: an emulator's ratio says nothing of the device it plays.
    """

    of: Pair
    to: Pair
    wall: Interval
    cpu: Interval | None
    n: int
    valid: bool
    functional_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Everything measured by one plan. The ratios are those of every other record to the first.

    Attributes:
        devices: The description of each (the agent's `probe`), by label.
        host: The machine that measured.
        notes: What was left out and why.
    """

    records: tuple[Latency, ...]
    ratios: tuple[Ratio, ...]
    devices: Mapping[str, Any]
    host: Mapping[str, Any]
    seed: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """{"bench": [...], "ratios": [...], "devices": {...}, "host": {...}, "seed", "notes": [...]}"""
        return {
            "bench": [record.to_json() for record in self.records],
            "ratios": [asdict(ratio) for ratio in self.ratios],
            "devices": dict(self.devices),
            "host": dict(self.host),
            "seed": self.seed,
            "notes": list(self.notes),
        }


def write_bench(document: Mapping[str, Any], path: Path) -> None:
    """Write a document whole or not at all.

    Raises:
        WriteError: The disk or the permissions refuse.
    """
    write_file(path, json.dumps(document, indent=1, allow_nan=False).encode() + b"\n")
