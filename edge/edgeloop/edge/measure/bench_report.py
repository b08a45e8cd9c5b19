"""The document of a bench in, one HTML page out that needs nothing beside it: tables, and every run in a picture."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeloop.atomic import write_file
from edgeloop.edge.measure.drawings import (
    MOST_OPERATORS,
    Record,
    draw_histogram,
    draw_latency,
    draw_operators,
    draw_ratios,
    draw_series,
    draw_shares,
    readings,
)
from edgeloop.edge.measure.latency_tables import profile_table, telling
from edgeloop.page import bundle_line, link, page, table, titled, written
from edgeloop.plots import figure, lacking
from edgeloop.result import Table

UNKNOWN = "unknown"
DEVICE = ("machine", "cpus", "os", "kernel", "board", "python")


def write_bench_report(
    document: Mapping[str, Any], tables: Sequence[Table], path: Path, model: Path | None = None
) -> list[str]:
    """Write a page about a document as `edgeloop bench --json` prints it, below the tables of its overview; `model` is
    the bundle or file that was measured.

    Returns:
        What a user should know of the page, one sentence each: without Matplotlib it has no plots.

    Raises:
        WriteError: The file cannot be written.
    """
    notes = list(filter(None, [lacking()]))
    records = document["bench"]
    conditions = [_conditions(record) for record in records]
    unknown = {name for name in conditions[0] if all(found[name] == UNKNOWN for found in conditions)}
    parts = [
        "<h1>edgeloop bench</h1>",
        f"<p>The rows were measured in interleaved blocks, in random order (seed {document['seed']}). Compare only "
        f"rows of this page. {html.escape(written())}</p>",
        _measured(model, path),
        *(f"<p>{html.escape(note)}</p>" for note in (*document.get("notes", ()), *notes)),
        *map(titled, tables),
    ]
    for batch in sorted({record["batch"] for record in records}):
        parts += _figures(document, [k for k, record in enumerate(records) if record["batch"] == batch])
    parts.append(_devices(document["devices"]))
    if unknown:
        parts.append(f"<p>Unknown for all rows: {html.escape(', '.join(sorted(unknown)).lower())}.</p>")
    for record, found in zip(records, conditions, strict=True):
        parts += _row(record, {name: value for name, value in found.items() if name not in unknown})
    write_file(path, page("edgeloop bench", parts).encode())
    return notes


def _measured(model: Path | None, path: Path) -> str:
    """What was measured: a bundle and its page, or a file."""
    if model is None:
        return ""
    return bundle_line(model, path) if model.is_dir() else f"<p>Model: {link(model, model.name, path)}.</p>"


def _figures(document: Mapping[str, Any], chosen: Sequence[int]) -> list[str]:
    """Of the records whose calls take as many samples: times of others do not belong on one axis with theirs."""
    records = [document["bench"][k] for k in chosen]
    labels = [_labels(document["bench"])[k] for k in chosen]
    batch = records[0]["batch"]
    of = f"Calls of {batch} samples. " if batch > 1 else ""
    parts = [
        figure(
            lambda axes: draw_latency(axes, records, labels),
            f"{of}Latency of each row: from the median (circle) to the 90th percentile (bar) of the steady runs, with "
            "its 95% interval. Further left is faster.",
            1.2 + 0.35 * len(records),
        ),
        figure(
            lambda axes: draw_shares(axes, records, labels),
            f"{of}Share of the runs that took at most this long. A curve further left is faster.",
        ),
    ]
    of_rows = [None, *document["ratios"]] if document["ratios"] else [None] * len(document["bench"])
    ratios = [(found, label) for k, label in zip(chosen, labels, strict=True) if (found := of_rows[k]) is not None]
    if ratios:
        than = (
            f"A call of {batch} samples relative to a call of the first row"
            if batch > 1
            else "Times relative to the first row"
        )
        caption = f"{than}, compared block by block, with 95% intervals. A ratio left of the line is faster."
        drawn, names = zip(*ratios, strict=True)
        parts.append(figure(lambda axes: draw_ratios(axes, drawn, names), caption, 1.2 + 0.35 * len(ratios)))
    return parts


def _devices(devices: Mapping[str, Any]) -> str:
    """The machines, without what none of them tells."""
    rows = [{**about, **(about.get("capabilities") or {})} for about in devices.values()]
    shown = [name for name in DEVICE if any(row.get(name, UNKNOWN) != UNKNOWN for row in rows)]
    cells = [[label, *(row.get(name, UNKNOWN) for name in shown)] for label, row in zip(devices, rows, strict=True)]
    return f"<h2>Devices</h2>{table(('device', *shown), cells)}" if cells and shown else ""


def _row(record: Record, conditions: Mapping[str, str]) -> list[str]:
    """What the page says and shows of one record."""
    of = "the steady runs" if record["steady"]["reached"] else "all runs"
    parts = [
        f"<h2>{html.escape(_name(record))}</h2>",
        "" if record["valid"] else f"<p class=best>Invalid: {html.escape(record['invalid_because'])}</p>",
        "<p class=best>The device is emulated: its outputs are valid, its times are not.</p>"
        if record["functional_only"]
        else "",
        f"<p>{html.escape(_sentence(record, conditions))}</p>",
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


def _sentence(record: Record, conditions: Mapping[str, str]) -> str:
    """Steadiness and conditions in words; what this device alone does not tell is named once, at the end."""
    steady = f"{'Steady' if record['steady']['reached'] else 'Not steady'}: {record['steady']['why'].rstrip('.')}."
    known = [f"{name}: {value}." for name, value in conditions.items() if value != UNKNOWN]
    lacking = [name for name, value in conditions.items() if value == UNKNOWN]
    return " ".join([steady, *known, *[f"Unknown: {', '.join(lacking).lower()}."] * bool(lacking)])


def _conditions(record: Record) -> dict[str, str]:
    """What was seen of the device, by name; what nobody knows is unknown."""
    seen = readings(record)
    hot = [r["temperature_c"] for r in seen if isinstance(r.get("temperature_c"), int | float)]
    clocks = [c for r in seen if isinstance(r.get("frequency_mhz"), list) for c in r["frequency_mhz"]]
    clocks = [c for c in clocks if isinstance(c, int | float)]
    states = {r.get("throttled", UNKNOWN) for r in seen}
    throttled = "yes" if True in states else "no" if states == {False} else UNKNOWN
    placed = "" if throttled != "yes" or any("at_s" in r for r in seen) else ", at an unknown time"
    return {
        "Contended (wall time above CPU time)": _yes_or_no(record["contended"]),
        "Throttled": throttled + placed,
        "Governor": ", ".join(sorted({str(r.get("governor", UNKNOWN)) for r in seen})) or UNKNOWN,
        "Temperature": _range(hot, "°C"),
        "Clock": _range(clocks, "MHz"),
    }


def _yes_or_no(value: bool | str) -> str:
    return value if isinstance(value, str) else "yes" if value else "no"


def _range(values: Sequence[float], unit: str) -> str:
    return f"{min(values):g} to {max(values):g} {unit}" if values else UNKNOWN
