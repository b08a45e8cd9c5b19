"""The verb `compare`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeloop.answer import Answer, Table
from edgeloop.edge.measure.compare import Compared, CompareOptions, Verdict, read_bench
from edgeloop.edge.measure.compare import compare as run
from edgeloop.edge.measure.records import Interval
from edgeloop.errors import BudgetError, OptionsError

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
) -> Answer:
    """Say of each row whether the second measurement is faster, slower, or cannot be told from the first."""
    failing = {_verdict(text) for text in fail_if or ()}
    rows = run(read_bench(first), read_bench(second), CompareOptions(margin=margin))
    notes = ["The intervals know what happened within each run, not what changed on the machine between the two."]
    answer = Answer({"compared": [_document(row) for row in rows], "margin": margin}, [_table(rows)], notes)
    failed = [f"{row.variant} on {row.runtime} is {row.verdict.value}" for row in rows if row.verdict in failing]
    if failed:
        ctx.obj.show(answer)  # an error prints its message alone
        raise BudgetError(f"{'; '.join(failed)}. Expected none of them, as --fail-if says.")
    return answer


def _verdict(text: str) -> Verdict:
    known = {verdict.value.replace(" ", "-"): verdict for verdict in Verdict}
    if text not in known:
        raise OptionsError(f"--fail-if {text!r} is no verdict. Choose from {', '.join(known)}.")
    return known[text]


def _document(row: Compared) -> dict[str, Any]:
    return {**asdict(row), "devices": list(row.devices), "verdict": row.verdict.value}


def _table(rows: list[Compared]) -> Table:
    cells = [
        (
            row.variant,
            row.runtime + (f" + {row.delegate}" if row.delegate else ""),
            " -> ".join(dict.fromkeys(row.devices)),
            _ratio(row.wall),
            _ratio(row.cpu),
            row.verdict.value,
            row.why,
        )
        for row in rows
    ]
    columns = ("variant", "runtime", "device", "wall, 95%", "CPU, 95%", "second is", "why")
    return Table("time of the second over time of the first", columns, cells)


def _ratio(ratio: Interval | None) -> str:
    if ratio is None:
        return ""
    ends = "too few turns" if ratio.low is None or ratio.high is None else f"{ratio.low:.3f} to {ratio.high:.3f}"
    return f"{ratio.ratio:.3f} ({ends})"
