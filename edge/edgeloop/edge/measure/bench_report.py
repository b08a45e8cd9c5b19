"""The document of a bench in, one HTML page out that needs nothing beside it: tables, and every run in a picture."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from edgeloop.atomic import write_file
from edgeloop.edge.measure.drawings import (
    MOST_OPERATORS,
    Record,
    draw_histogram,
    draw_operators,
    draw_ratios,
    draw_series,
    draw_shares,
    readings,
)
from edgeloop.edge.measure.latency_tables import profile_table, telling
from edgeloop.page import page, titled
from edgeloop.plots import figure, lacking
from edgeloop.result import Table


def write_bench_report(document: Mapping[str, Any], tables: Sequence[Table], path: Path) -> list[str]:
    """Write a page about a document as `edgeloop bench --json` prints it, below the tables of its overview.

    Returns:
        What a user should know of the page, one sentence each: without Matplotlib it has no plots.

    Raises:
        WriteError: The file cannot be written.
    """
    notes = list(filter(None, [lacking()]))
    records, ratios = document["bench"], document["ratios"]
    host = ", ".join(f"{name} {value}" for name, value in document["host"].items())
    written = f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"
    parts = [
        "<h1>edgeloop bench</h1>",
        f"<p>The rows were measured in interleaved blocks, in random order (seed {document['seed']}). Compare only "
        f"rows of this page. Host: {html.escape(host)}. Written on {written}.</p>",
        *(f"<p>{html.escape(note)}</p>" for note in (*document.get("notes", ()), *notes)),
        *map(titled, tables),
        figure(
            lambda axes: draw_shares(axes, records, _labels(records)),
            "Share of the runs that took at most this long. A curve further left is faster.",
        ),
    ]
    if ratios:
        caption = (
            "Times relative to the first row, compared block by block, with 95% intervals. "
            "A ratio left of the line is faster."
        )
        height_in = 1.2 + 0.35 * len(ratios)
        parts.append(figure(lambda axes: draw_ratios(axes, ratios, _labels(records)[1:]), caption, height_in))
    for record in records:
        parts += _row(record)
    write_file(path, page("edgeloop bench", parts).encode())
    return notes


def _row(record: Record) -> list[str]:
    """What the page says and shows of one record."""
    of = "the steady runs" if record["steady"]["reached"] else "all runs"
    parts = [
        f"<h2>{html.escape(_name(record))}</h2>",
        "" if record["valid"] else f"<p class=best>Invalid: {html.escape(record['invalid_because'])}</p>",
        "<p class=best>The device is emulated: its outputs are valid, its times are not.</p>"
        if record["functional_only"]
        else "",
        f"<p>{html.escape(_conditions(record))}</p>",
        figure(
            lambda axes: draw_histogram(axes, record), f"All {record['n']} runs. The lines are percentiles of {of}."
        ),
        figure(lambda axes: draw_series(axes, record), "The time of each run, by when it began."),
    ]
    if record["profile"]:
        bars = 1.2 + 0.22 * min(MOST_OPERATORS + 1, len(record["profile"]))
        caption = "Mean time of each operator, slowest first, measured by the runtime's profiler."
        parts.append(titled(profile_table(_name(record), record["profile"])))
        parts.append(figure(lambda axes: draw_operators(axes, record["profile"]), caption, bars))
    return parts


def _name(record: Record) -> str:
    delegate = f" + {record['delegate']}" if record["delegate"] else ""
    return f"{record['variant']} on {record['runtime']}{delegate} on {record['device']}"


def _labels(records: Sequence[Record]) -> list[str]:
    """As short as tells the rows apart."""
    names = telling((record["runtime"], record["device"]) for record in records)
    return [", ".join(record[name] for name in names) for record in records]


def _conditions(record: Record) -> str:
    """Steadiness and conditions in words; what nobody knows is called unknown."""
    seen = readings(record)
    hot = [r["temperature_c"] for r in seen if isinstance(r.get("temperature_c"), int | float)]
    clocks = [c for r in seen if isinstance(r.get("frequency_mhz"), list) for c in r["frequency_mhz"]]
    clocks = [c for c in clocks if isinstance(c, int | float)]
    states = {r.get("throttled", "unknown") for r in seen}
    throttled = "yes" if True in states else "no" if states == {False} else "unknown"
    placed = "" if throttled != "yes" or any("at_s" in r for r in seen) else ", at an unknown time"
    return (
        f"{'Steady' if record['steady']['reached'] else 'Not steady'}: {record['steady']['why'].rstrip('.')}. "
        f"Contended (wall time above CPU time): {_yes_or_no(record['contended'])}. Throttled: {throttled}{placed}. "
        f"Governor: {', '.join(sorted({str(r.get('governor', 'unknown')) for r in seen})) or 'unknown'}. "
        f"Temperature: {_range(hot, '°C')}. Clock: {_range(clocks, 'MHz')}."
    )


def _yes_or_no(value: bool | str) -> str:
    return value if isinstance(value, str) else "yes" if value else "no"


def _range(values: Sequence[float], unit: str) -> str:
    return f"{min(values):g} to {max(values):g} {unit}" if values else "unknown"
