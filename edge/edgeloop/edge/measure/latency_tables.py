"""Records in, tables for people out. Every cell is text; an unknown value is the word "unknown".

A column whose cells are all the same is left out, and its value stands in the title.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgeloop.edge.measure.bench_records import Bench, Interval, Latency
from edgeloop.edge.on_device.percentiles import FEWEST_RUNS
from edgeloop.result import Table

OPERATORS = 15  # rows of a profile: the slowest
UNKNOWN, TOO_FEW_CALLS = "unknown", "too few calls"
OUTCOMES = {"p90_ms": "p90 ms", "p99_query_ms": "p99 ms", "samples_per_s": "samples/s"}
ALWAYS = (50, 90)  # percentiles; of the others, half a column would say no more than how long a row took to settle
SAYABLE = (
    "batch",
    "inputs",
    "calls",
    "queries",
    "samples per query",
    "blocks",
    "run by",
    "arena",
    "operators delegated",
)

Columns = Mapping[str, Sequence[str]]  # cells by name, one for each row


def tables(result: Bench) -> list[Table]:
    """An overview, and operators where they were asked for."""
    profiled = [record for record in result.records if record.profile is not None]
    return overview(result) + [profile_table(_row(record), record.profile or ()) for record in profiled]


def overview(result: Bench) -> list[Table]:
    """Steady times, start and memory, the scenario where it was asked for, ratios to the first row."""
    records = result.records
    made = [latency_table(records), start_table(records)]
    if any(r.outcome.metric != "p90_ms" or r.outcome.driver != "edgeloop" for r in records):
        made.append(outcome_table(records))
    return [*made, ratio_table(result)] if result.ratios else made


def notes(records: Sequence[Latency]) -> list[str]:
    """What the tables cannot show, and why."""
    told = []
    lacking = [f"p{q} needs {fewest}" for q, fewest in FEWEST_RUNS.items() if None in _percentiles(records, q)]
    if lacking:
        told.append(f"Some rows have too few steady calls: {', '.join(lacking)} calls. Measure more with --runs.")
    for name, shape in {(name, r.input_shapes[name]) for r in records for name in r.assumed_sizes}:
        sizes = ",".join(map(str, shape))
        told.append(f"Free sizes of {name} were measured as 1: {sizes}. Choose others with --shape {name}={sizes}.")
    for device, cpus in {(r.device, r.cpus) for r in records if r.cpus is not None and r.threads > r.cpus}:
        told.append(f"{device} has {cpus} CPUs, and the model ran with {records[0].threads} threads, which then wait.")
    return told


def latency_table(records: Sequence[Latency]) -> Table:
    """Times of the steady calls of one plan, in the plan's order."""
    first = records[0]
    threads = "1 thread" if first.threads == 1 else f"{first.threads} threads"
    delegate = f" with {first.delegate}" if first.delegate else ""
    times = {q: _percentiles(records, q) for q in FEWEST_RUNS}
    shown = [q for q, values in times.items() if q in ALWAYS or None not in values]
    return compact(
        f"{first.scenario}: {_places(records)}{delegate}, {threads}, blocks of {first.block} calls "
        f"after {first.warmup} warm-up calls",
        {
            **_names(records),
            "batch": [str(r.batch) for r in records],
            "calls": [str(r.n) for r in records],
            "operators delegated": [str(len(r.delegated)) if r.delegated is not None else "" for r in records],
            **{f"p{q} ms": [_time(value) for value in times[q]] for q in shown},
            "CPU ms": [_time(r.cpu_p50_ms) if r.cpu_ms else UNKNOWN for r in records],
            "steady": [f"from {r.steady.start}" if r.steady.reached else "not reached" for r in records],
            "remarks": [", ".join(_remarks(r)) for r in records],
            "inputs": [_input_shapes(r.input_shapes) for r in records],  # the first to go where the width does not do
        },
        "; compare times only within this table",
    )


def _input_shapes(shapes: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name} {'×'.join(map(str, shape)) or 'scalar'}" for name, shape in shapes.items()) or "none"


def start_table(records: Sequence[Latency]) -> Table:
    """What comes before the steady calls, and the peak memory."""
    return compact(
        "start-up (each step measured once) and memory",
        {
            **_names(records),
            "import ms": [_time(r.import_ms) for r in records],
            "load ms": [_time(r.load_ms) for r in records],
            "first call ms": [_time(r.first_ms) for r in records],
            "peak RSS": [_megabytes(r.rss_peak_bytes) for r in records],
            "arena": [_megabytes(r.arena_bytes) for r in records],
        },
    )


def outcome_table(records: Sequence[Latency]) -> Table:
    """What MLPerf's rules make of all queries; the percentiles are early-stopping estimates."""
    outcomes = [r.outcome for r in records]
    first = outcomes[0]
    short = "" if all(o.mlperf_length for o in outcomes) else ", too short for an MLPerf result"
    return compact(
        f"{first.scenario} by MLPerf's rules, queries issued by {first.driver}{short}",
        {
            **_names(records),
            "queries": [str(o.queries) for o in outcomes],
            "samples per query": [str(o.samples_per_query) for o in outcomes],
            OUTCOMES[first.metric]: [
                f"too few queries, needs {o.minimum_queries}" if o.value is None else _digits(o.value) for o in outcomes
            ],
        },
    )


def ratio_table(result: Bench) -> Table:
    """Each row's time over the first row's."""
    first, *others = result.records
    ratios = result.ratios
    remarks = [["invalid"] * (not ratio.valid) + ["functional only"] * ratio.functional_only for ratio in ratios]
    return compact(
        f"time relative to {_row(first)}, compared block by block, with 95% intervals",
        {
            **_names(result.records, others),
            "wall": [_interval(ratio.wall) for ratio in ratios],
            "CPU": [UNKNOWN if ratio.cpu is None else _interval(ratio.cpu) for ratio in ratios],
            "blocks": [str(ratio.n) for ratio in ratios],
            "remarks": [", ".join(words) for words in remarks],
        },
    )


def profile_table(row: str, profile: Sequence[Mapping[str, Any]]) -> Table:
    """The slowest operators first."""
    ops = sorted(profile, key=lambda op: -op["share"])
    slowest = f": the {OPERATORS} slowest of {len(ops)}" if len(ops) > OPERATORS else ""
    ops = ops[:OPERATORS]
    return compact(
        f"operators of {row}{slowest}, timed in whole microseconds",
        {
            "kernel": [op["name"] for op in ops],
            "run by": ["XNNPACK" if op["delegated"] else "the runtime" for op in ops],
            "operator": [op["operator"] or "" for op in ops],
            "shapes": [_shapes(op) for op in ops],
            "mean us": [f"{op['mean_us']:.2f}" for op in ops],
            "share": [f"{op['share']:.1%}" for op in ops],
        },
    )


def compact(title: str, columns: Columns, advice: str = "") -> Table:
    """Without what every row says: the title does."""
    same = {name for name in SAYABLE if len(set(columns.get(name, ()))) == 1}
    said = [f"{name} {columns[name][0]}" for name in SAYABLE if name in same and columns[name][0]]
    shown = [name for name, cells in columns.items() if name not in same and any(cells)]
    rows = list(zip(*(columns[name] for name in shown), strict=True))
    return Table(", ".join([title, *said]) + advice, shown, rows)


def telling(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Which of its names tells a row of a plan, given as (runtime, device), from the others."""
    places = set(rows)
    runtimes = {runtime for runtime, _ in places}
    return ["variant", *["runtime"] * (len(runtimes) > 1), *["device"] * (len(places) > len(runtimes))]


def _names(records: Sequence[Latency], rows: Sequence[Latency] | None = None) -> Columns:
    """What tells `rows` of these records apart."""
    names = telling((r.runtime, r.device) for r in records)
    return {name: [getattr(r, name) for r in (records if rows is None else rows)] for name in names}


def _places(records: Sequence[Latency]) -> str:
    """Which runtime, in which version, is where; not where the rows say it."""
    devices: dict[str, list[str]] = {}
    for r in records:
        devices.setdefault(f"{r.runtime} {r.runtime_version}", []).append(r.device)
    if "device" in _names(records) and len(devices) == len({r.runtime for r in records}):
        return ", ".join(devices)
    return ", ".join(f"{runtime} on {' and '.join(dict.fromkeys(found))}" for runtime, found in devices.items())


def _row(record: Latency) -> str:
    return f"{record.variant} on {record.runtime} on {record.device}"


def _remarks(r: Latency) -> list[str]:
    remarks = [] if r.valid else [f"invalid: {r.invalid_because}"]
    if r.functional_only:
        remarks.append("functional only")
    if r.contended is True:
        remarks.append("contended")
    return remarks


def _percentiles(records: Sequence[Latency], q: int) -> list[float | None]:
    return [{50: r.p50_ms, 90: r.p90_ms, 95: r.p95_ms, 99: r.p99_ms}[q] for r in records]


def _time(value: float | None) -> str:
    return TOO_FEW_CALLS if value is None else _digits(value)


def _digits(value: float, significant: int = 3) -> str:
    decimals = significant - 1 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:.{max(0, decimals)}f}"


def _megabytes(size_bytes: int | str | None) -> str:
    return f"{size_bytes / 1e6:.0f} MB" if isinstance(size_bytes, int) else UNKNOWN


def _interval(found: Interval) -> str:
    ratio, *ends = ("" if value is None else _digits(value, 4) for value in (found.ratio, found.low, found.high))
    return f"{ratio} ({' to '.join(ends) if all(ends) else 'too few blocks'})"


def _shapes(op: Mapping[str, Any]) -> str:
    if op["output"] is None:
        return UNKNOWN
    sizes = ["x".join("?" if d is None else str(d) for d in shape) for shape in (*op["inputs"], op["output"])]
    return f"{', '.join(sizes[:-1])} -> {sizes[-1]}"
