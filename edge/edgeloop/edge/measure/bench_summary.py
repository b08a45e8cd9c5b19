"""The samples of a pair in, its record out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from edgeloop.edge.measure.bench_records import ConditionRecord, Latency, Pair, Ratio, Reading, Unknown
from edgeloop.edge.measure.prepared_model import PreparedModel
from edgeloop.edge.measure.ratios import paired
from edgeloop.edge.measure.scenarios import ScenarioResult, query_ms, scenario_result
from edgeloop.edge.measure.statistics import percentile_interval, turn_medians
from edgeloop.edge.measure.steady_state import find_steady_state
from edgeloop.edge.on_device.percentiles import percentile

CONTENDED = 1.1


def summarize(
    loaded: PreparedModel, profile: Sequence[Mapping[str, Any]] | None = None, driven: ScenarioResult | None = None
) -> Latency:
    """The record of a pair whose turns are over."""
    s = loaded.samples
    settled = find_steady_state(s.wall_ms, loaded.block)
    wall, cpu = s.wall_ms[settled.start or 0 :], s.cpu_ms[settled.start or 0 :]
    over: float | Unknown = sum(wall) / sum(cpu) if sum(cpu) else "unknown"
    because = _invalid(s.readings)
    return Latency(
        **_what(loaded),
        outcome=driven or scenario_result(loaded.query, query_ms(loaded.query, s.wall_ms, s.started_s)),
        n=len(s.wall_ms),
        p50_ms=percentile(wall, 50),
        p90_ms=percentile(wall, 90),
        p95_ms=percentile(wall, 95),
        p99_ms=percentile(wall, 99),
        p90_interval_ms=percentile_interval(wall, 90),
        percentile_runs=len(wall),
        cpu_p50_ms=percentile(cpu, 50),
        first_ms=s.first_ms,
        steady=settled,
        wall_over_cpu=over,
        contended=_contended(over, loaded.options.threads),
        involuntary_switches=None if None in s.switches else sum(n or 0 for n in s.switches),
        rss_peak_bytes=s.rss_peak_bytes,
        rss_bytes=s.rss_bytes,
        conditions=ConditionRecord(before=s.readings[0], during=tuple(s.readings[1:-1]), after=s.readings[-1]),
        valid=because is None,
        invalid_because=because,
        warmup_ms=tuple(s.warmup_ms),
        entry_ms=tuple(s.entry_ms),
        wall_ms=tuple(s.wall_ms),
        cpu_ms=tuple(s.cpu_ms),
        started_s=tuple(s.epoch_s + start for start in s.started_s),
        profile=None if profile is None else tuple(profile),
    )


def ratio(of: Latency, to: Latency, skipped: int, seed: int) -> Ratio:
    """Time of one over time of the other in the turns that they took side by side, from where both are steady.

    `skipped`: runs of `to` before the first turn of `of`, in groups that were measured earlier.
    """
    beside = slice(skipped, skipped + len(of.wall_ms))
    starts = of.steady.start, find_steady_state(to.wall_ms[beside], to.block).start
    first = max(start or 0 for start in starts) // of.block
    wall = turn_medians(of.wall_ms, of.block)[first:], turn_medians(to.wall_ms[beside], to.block)[first:]
    cpu = turn_medians(of.cpu_ms, of.block)[first:], turn_medians(to.cpu_ms[beside], to.block)[first:]
    return Ratio(
        of=_pair(of),
        to=_pair(to),
        wall=paired(*wall, seed=seed),
        cpu=paired(*cpu, seed=seed) if all(len(times) and np.min(times) > 0 for times in cpu) else None,
        n=len(wall[0]),
        valid=of.valid and to.valid,
        functional_only=of.functional_only or to.functional_only,
    )


def _what(loaded: PreparedModel) -> dict[str, Any]:
    """The fields of a record that were known before the first run."""
    target, runner, device = loaded.candidate.target, loaded.candidate.runner, loaded.candidate.device
    options, prepared, delegated = loaded.options, loaded.prepared, loaded.prepared.delegated
    return {
        "variant": target.variant,
        "format": target.format.value,
        "bytes": target.bytes,
        "sha256": target.sha256,
        "runtime": runner.name,
        "runtime_version": loaded.about.version,
        "device": device.label,
        "functional_only": (loaded.about.capabilities or {}).get("emulated") is True,
        "threads": options.threads,
        "delegate": None if options.delegate is None else PurePath(options.delegate).name,
        "delegated": None if delegated is None else tuple(delegated),
        "scenario": options.scenario.value,
        "batch": loaded.query.samples_per_call,
        "input_shapes": {name: tuple(array.shape) for name, array in loaded.inputs.items()},
        "assumed_sizes": loaded.assumed_sizes,
        "cpus": loaded.about.cpus,
        "warmup": options.warmup,
        "block": loaded.block,
        "import_ms": prepared.import_ms,
        "load_ms": prepared.load_ms,
        "arena_bytes": prepared.arena_bytes,
    }


def _contended(over: float | Unknown, threads: int) -> bool | Unknown:
    if over == "unknown":
        return "unknown"
    if over > CONTENDED:
        return True
    return False if threads == 1 else "unknown"


def _invalid(readings: Sequence[Reading]) -> str | None:
    """Throttling at any time: a device that slows itself down measures its cooling."""
    for reading in readings:
        if reading["throttled"] is True:
            flags = reading["throttled_flags"]
            how = f" ({', '.join(flags)})" if isinstance(flags, (list, tuple)) and flags else ""
            return f"the device was throttled{how} {reading['at_s']:.1f} s after the measurement began"
    return None


def _pair(record: Latency) -> Pair:
    return Pair(variant=record.variant, runtime=record.runtime, device=record.device)
