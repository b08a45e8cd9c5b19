"""The verb `compare`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgeloop.edge.measure.bench_comparison import Change, CompareOptions, Comparison
from edgeloop.edge.measure.bench_comparison import compare as run
from edgeloop.edge.measure.bench_document import read_bench
from edgeloop.edge.measure.bench_records import Interval
from edgeloop.edge.measure.latency_tables import compact, telling
from edgeloop.errors import BudgetError
from edgeloop.result import CommandResult, Table


def compare(
    ctx: typer.Context,
    before: Annotated[Path, typer.Argument(help="Compare this measurement, a file that bench -o wrote.")],
    after: Annotated[Path, typer.Argument(help="Compare it with this later one.")],
    margin: Annotated[
        float, typer.Option(metavar="SHARE", help="Ignore differences up to this share: 0.02 is 2%.")
    ] = 0.02,
    fail_if: Annotated[
        list[Change] | None,
        typer.Option(metavar="CHANGE", help="Fail (exit code 6) if a variant changed in this way."),
    ] = None,
) -> CommandResult:
    """Compare two measurements: which variants became faster or slower, with 95% intervals."""
    options = CompareOptions(margin=margin)
    rows = run(read_bench(before), read_bench(after), options)
    reasons = list(dict.fromkeys(row.why for row in rows if row.why))
    notes = [f"({k}) {why}" for k, why in enumerate(reasons, 1)]
    notes += [
        "The intervals cover what varied within each measurement, not what changed on the machine between the two."
    ]
    failed = [f"{row.variant} on {row.runtime} is {row.change.value}" for row in rows if row.change in (fail_if or ())]
    document = {"compared": [asdict(row) for row in rows], "margin": margin}
    error = BudgetError("; ".join(failed), advice="--fail-if allows none of these.") if failed else None
    return CommandResult(document, [_table(rows, reasons)], notes, error)


def _table(rows: list[Comparison], reasons: list[str]) -> Table:
    runtimes = [row.runtime + (f" + {row.delegate}" if row.delegate else "") for row in rows]
    devices = [" -> ".join(dict.fromkeys(row.devices)) for row in rows]
    names = {"variant": [row.variant for row in rows], "runtime": runtimes, "device": devices}
    places = dict.fromkeys(f"{runtime} on {device}" for runtime, device in zip(runtimes, devices, strict=True))
    return compact(
        f"time of the second measurement relative to the first: {', '.join(places)}",
        {
            **{name: names[name] for name in telling(zip(runtimes, devices, strict=True))},
            "wall, 95%": [_ratio(row.wall) for row in rows],
            "CPU, 95%": [_ratio(row.cpu) for row in rows],
            "change": [row.change.value for row in rows],
            "why": [f"({reasons.index(row.why) + 1})" if row.why else "" for row in rows],
        },
    )


def _ratio(ratio: Interval | None) -> str:
    if ratio is None:
        return ""
    ends = "too few blocks" if ratio.low is None or ratio.high is None else f"{ratio.low:.3f} to {ratio.high:.3f}"
    return f"{ratio.ratio:.3f} ({ends})"
