"""How fast a bundle's variants are on a device: measured there once, kept here by device and manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from edgeloop.atomic import write_file
from edgeloop.bundle import Bundle
from edgeloop.edge.on_device.variants.variant_choice import MeasuredSpeed, VariantFit
from edgeloop.errors import TargetError
from edgeloop.hashes import digest_of
from edgeloop.progress import Progress, silent
from edgeloop.runtime.device import Device
from edgeloop.runtime.runners import AGENT_RUNNERS
from edgeloop.user_cache import CacheKind, cache_folder, log_miss, mark_used

RUNS = 64  # supports a p90, too
Speeds = dict[tuple[str, str], MeasuredSpeed]  # by variant id and runtime


def measure_speeds(
    bundle: Bundle,
    device: Device,
    fitting: Sequence[VariantFit],
    threads: int,
    timeout_s: float,
    progress: Progress = silent,
) -> Speeds:
    """Of every pair whose runtime is installed on the device; what is in the cache is not measured again. `timeout_s`
    is for one answer of the device.

    Raises:
        TargetError: None of the runtimes is installed on the device.
        DeviceError: It died or did not answer in time.
        WriteError: The cache folder may not be written to.
    """
    installed = available_runtimes(device, list(dict.fromkeys(fit.runtime for fit in fitting)))
    file = _file(bundle, device, threads)
    known = _read(file)
    wanted = [fit for fit in fitting if fit.runtime in installed]
    if all((fit.variant.id, fit.runtime) in known for fit in wanted):
        mark_used(file)
        return known
    log_miss(file)
    known |= _measure(bundle, device, wanted, threads, timeout_s, progress)
    rows = [{"variant": id, "runtime": runtime, **asdict(speed)} for (id, runtime), speed in known.items()]
    write_file(file, json.dumps({"device": device.label, "speeds": rows}, indent=1).encode() + b"\n")
    return known


def available_runtimes(device: Device, names: Sequence[str]) -> list[str]:
    """Those of `names` that load on the device, in their order; at least one.

    Raises:
        TargetError: None of them.
    """
    lacks = {name: AGENT_RUNNERS[name].lacks(device) for name in names}
    installed = [name for name in names if not lacks[name]]
    if not installed:
        raise TargetError(
            f"{device.name} has no runtime for this bundle: {next(iter(lacks.values()))}",
            advice="Install one for the device's Python, e.g. with: pip install ai-edge-litert",
        )
    return installed


def _measure(
    bundle: Bundle,
    device: Device,
    fitting: Sequence[VariantFit],
    threads: int,
    timeout_s: float,
    progress: Progress,
) -> Speeds:
    # imported here: a deploy that changes nothing measures nothing
    from edgeloop.edge.measure.bench import bench
    from edgeloop.edge.measure.bench_plan import BenchOptions
    from edgeloop.edge.measure.bench_targets import find_targets

    names = dict.fromkeys(fit.runtime for fit in fitting)
    ids = {fit.variant.id for fit in fitting}
    what = [target for target in find_targets(bundle.path) if target.variant in ids]
    options = BenchOptions(devices=(device,), runtimes=tuple(names), threads=threads, runs=RUNS, timeout_s=timeout_s)
    records = bench(what, options, progress).records
    return {
        (r.variant, r.runtime): MeasuredSpeed(ms=r.p50_ms / r.batch, rss_peak_bytes=r.rss_peak_bytes)
        for r in records
        if r.valid and r.p50_ms is not None
    }


def _file(bundle: Bundle, device: Device, threads: int) -> Path:
    key = digest_of(f"{device.ssh}\n{device.python}\n{bundle.manifest_sha256}\n{threads}".encode())[:16]
    return cache_folder(CacheKind.SPEEDS) / f"{key}.json"


def _read(file: Path) -> Speeds:
    """Empty where there is no such file, or it cannot be read: a cache may always be deleted."""
    try:
        rows: Sequence[Mapping] = json.loads(file.read_bytes())["speeds"]
        return {
            (r["variant"], r["runtime"]): MeasuredSpeed(ms=r["ms"], rss_peak_bytes=r["rss_peak_bytes"]) for r in rows
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}
