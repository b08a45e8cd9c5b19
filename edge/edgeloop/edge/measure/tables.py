"""Records in, tables for people out. Every cell is text; what is not known is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeloop.answer import Table
from edgeloop.edge.measure.records import Bench, Interval, Latency, Ratio

OPERATORS = 15  # rows of a profile: the slowest


def tables(result: Bench) -> list[Table]:
    """Times, ratios to the first row, and operators where they were asked for."""
    made = [latency_table(result.records)]
    if result.ratios:
        made.append(ratio_table(result.ratios))
    return made + [profile_table(record) for record in result.records if record.profile is not None]


def latency_table(records: Sequence[Latency]) -> Table:
    """Times of one plan, in its order."""
    first = records[0]
    single = first.scenario == "single-stream"
    title = (
        f"{first.scenario}: {first.n} calls after {first.warmup}, turns of {first.block}, {first.threads} thread(s); "
        "compare within this table only"
    )
    columns = ["variant", "runtime", "device", "batch", "p50 ms", "p90 ms", "p99 ms", "CPU ms", "steady"]
    rows = []
    for r in records:
        times = [_ms(value) for value in (r.p50_ms, r.p90_ms, r.p99_ms, r.cpu_p50_ms)]
        settled = f"from {r.steady.start}" if r.steady.reached else "not reached"
        rss = "unknown" if r.rss_peak_bytes is None else f"{r.rss_peak_bytes / 1e6:.0f} MB"
        last = rss if single else _ms(r.outcome.value)
        row = (r.variant, f"{r.runtime} {r.runtime_version}", r.device, str(r.batch), *times, settled, last)
        rows.append((*row, ", ".join(_remarks(r))))
    return Table(title, (*columns, "peak RSS" if single else first.outcome.metric, "remarks"), rows)


def ratio_table(ratios: Sequence[Ratio]) -> Table:
    """Each row's time over the first row's."""
    to = ratios[0].to
    title = f"time over that of {to.variant} on {to.runtime} on {to.device}, turn by turn, with 95% intervals"
    rows = [
        (
            ratio.of.variant,
            ratio.of.runtime,
            ratio.of.device,
            _interval(ratio.wall),
            "unknown" if ratio.cpu is None else _interval(ratio.cpu),
            str(ratio.n),
            ", ".join(["invalid"] * (not ratio.valid) + ["functional only"] * ratio.functional_only),
        )
        for ratio in ratios
    ]
    return Table(title, ("variant", "runtime", "device", "wall", "CPU", "turns", "remarks"), rows)


def profile_table(record: Latency) -> Table:
    """The slowest operators first."""
    ops = sorted(record.profile or (), key=lambda op: -op["share"])
    title = f"operators of {record.variant} on {record.runtime} on {record.device}"
    if len(ops) > OPERATORS:
        title += f": the {OPERATORS} slowest of {len(ops)}"
    rows = [
        (op["name"], op["operator"] or "", _shapes(op), f"{op['mean_us']:.1f}", f"{op['share']:.1%}")
        for op in ops[:OPERATORS]
    ]
    return Table(title, ("ran", "operator", "shapes", "mean us", "share"), rows)


def _remarks(r: Latency) -> list[str]:
    remarks = [] if r.valid else [f"invalid: {r.invalid_because}"]
    if r.functional_only:
        remarks.append("functional only")
    if r.contended is True:
        remarks.append("contended")
    if r.delegate is not None:
        remarks.append(f"on {r.delegate}")
    return remarks


def _ms(value: float | None) -> str:
    if value is None:
        return "insufficient"
    return f"{value:.3f}" if value >= 0.1 else f"{value:.2g}"


def _interval(found: Interval) -> str:
    if found.low is None or found.high is None:
        return f"{found.ratio:.3f} (insufficient)"
    return f"{found.ratio:.3f} ({found.low:.3f} to {found.high:.3f})"


def _shapes(op: Mapping[str, Any]) -> str:
    if op["output"] is None:
        return "unknown"
    sizes = ["x".join("?" if d is None else str(d) for d in shape) for shape in (*op["inputs"], op["output"])]
    return f"{', '.join(sizes[:-1])} -> {sizes[-1]}"
