"""The verb `compare`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeloop.edge.measure.bench_comparison import Change, CompareOptions, Comparison, read_bench
from edgeloop.edge.measure.bench_comparison import compare as run
from edgeloop.edge.measure.bench_records import Interval
from edgeloop.edge.measure.latency_tables import compact, telling
from edgeloop.errors import BudgetError, OptionsError
from edgeloop.result import CommandResult, Table

app = typer.Typer()


@app.command()
def compare(
    ctx: typer.Context,
    first: Annotated[Path, typer.Argument(help="What `edgeloop bench -o` wrote: before.")],
    second: Annotated[Path, typer.Argument(help="Another one: after.")],
    margin: Annotated[float, typer.Option(help="A difference that does not matter, as a share.")] = 0.02,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(help="Exit 6 at this verdict: faster, slower, cannot-tell, not-comparable; repeat."),
    ] = None,
) -> CommandResult:
    """Say of each row whether the second measurement is faster, slower, or cannot be told from the first."""
    failing = {_verdict(text) for text in fail_if or ()}
    rows = run(read_bench(first), read_bench(second), CompareOptions(margin=margin))
    reasons = list(dict.fromkeys(row.why for row in rows if row.why))
    notes = [f"({k}) {why}" for k, why in enumerate(reasons, 1)]
    notes += ["The intervals know what happened within each run, not what changed on the machine between the two."]
    answer = CommandResult(
        {"compared": [_document(row) for row in rows], "margin": margin}, [_table(rows, reasons)], notes
    )
    failed = [f"{row.variant} on {row.runtime} is {row.verdict.value}" for row in rows if row.verdict in failing]
    if failed:
        ctx.obj.show(answer)  # an error prints its message alone
        raise BudgetError(f"{'; '.join(failed)}. Expected none of them, as --fail-if says.")
    return answer


def _verdict(text: str) -> Change:
    known = {verdict.value.replace(" ", "-"): verdict for verdict in Change}
    if text not in known:
        raise OptionsError(f"--fail-if {text!r} is no verdict. Choose from {', '.join(known)}.")
    return known[text]


def _document(row: Comparison) -> dict[str, Any]:
    return {**asdict(row), "devices": list(row.devices), "verdict": row.verdict.value}


def _table(rows: list[Comparison], reasons: list[str]) -> Table:
    runtimes = [row.runtime + (f" + {row.delegate}" if row.delegate else "") for row in rows]
    devices = [" -> ".join(dict.fromkeys(row.devices)) for row in rows]
    names = {"variant": [row.variant for row in rows], "runtime": runtimes, "device": devices}
    places = dict.fromkeys(f"{runtime} on {device}" for runtime, device in zip(runtimes, devices, strict=True))
    return compact(
        f"time of the second over time of the first: {', '.join(places)}",
        {
            **{name: names[name] for name in telling(zip(runtimes, devices, strict=True))},
            "wall, 95%": [_ratio(row.wall) for row in rows],
            "CPU, 95%": [_ratio(row.cpu) for row in rows],
            "second is": [row.verdict.value for row in rows],
            "why": [f"({reasons.index(row.why) + 1})" if row.why else "" for row in rows],
        },
    )


def _ratio(ratio: Interval | None) -> str:
    if ratio is None:
        return ""
    ends = "too few turns" if ratio.low is None or ratio.high is None else f"{ratio.low:.3f} to {ratio.high:.3f}"
    return f"{ratio.ratio:.3f} ({ends})"
