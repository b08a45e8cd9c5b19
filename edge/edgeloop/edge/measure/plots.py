"""The document of a bench in, one HTML page out that needs nothing beside it: every run in a picture.

Nothing is cut off or smoothed: a spread that looks bad was. Axes of time are logarithmic where the slowest run took
more than five times the fastest.
"""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.atomic import write_file
from edgeloop.edge.measure.latency_tables import profile_table, telling
from edgeloop.extras import need
from edgeloop.page import page, titled
from edgeloop.result import Table

WIDE = 5.0  # slowest over fastest, above which an axis is logarithmic
FEW_LABELS = 30  # last over first mark of a logarithmic axis, above which every second one would hide the next
MANY_POINTS = 3000  # above it a cloud of points is a bitmap within the picture: as shapes it would be megabytes
MOST_OPERATORS = 25  # bars that can be read; the rest is one bar
LINES = ("-", "--", ":", "-.")  # one for each round of Matplotlib's ten colours
BLUE, GREY, RED, GREEN = "#06c", "#888", "#c22", "#282"

Record = Mapping[str, Any]


def write_bench_report(document: Mapping[str, Any], tables: Sequence[Table], path: Path) -> None:
    """Write a page about a document as `edgeloop bench --json` prints it, below the tables of its overview.

    Raises:
        MissingExtra: Matplotlib is not installed.
        WriteError: The file cannot be written.
    """
    records, ratios = document["bench"], document["ratios"]
    host = ", ".join(f"{name} {value}" for name, value in document["host"].items())
    parts = [
        "<h1>edgeloop bench</h1>",
        f"<p>Rows took turns in one plan, in an order of seed {document['seed']}; compare within this page only. "
        f"Asked from: {html.escape(host)}.</p>",
        *(f"<p>{html.escape(note)}</p>" for note in document.get("notes", ())),
        *map(titled, tables),
        figure(lambda axes: _shares(axes, records), "Share of runs that took no longer. Further left is faster."),
    ]
    if ratios:
        caption = "Ratios of times, turn by turn, with 95% intervals. Left of the line is faster."
        parts.append(
            figure(lambda axes: _ratios(axes, ratios, _labels(records)[1:]), caption, 1.2 + 0.35 * len(ratios))
        )
    for record in records:
        parts += _row(record)
    write_file(path, page("edgeloop bench", parts).encode())


def figure(draw: Callable[[Any], None], caption: str, height_in: float = 3.6) -> str:
    """What `draw` puts on Matplotlib axes, as inline SVG with a caption; 9 inches wide before the page scales it.

    Raises:
        MissingExtra: Matplotlib is not installed.
    """
    figures = need("matplotlib.figure", extra="plots")  # no pyplot: no global state and no window system
    drawing = figures.Figure(figsize=(9, height_in), layout="constrained")
    axes = drawing.add_subplot()
    axes.grid(alpha=0.3)
    draw(axes)
    for axis in (axis for axis in (axes.xaxis, axes.yaxis) if axis.get_scale() == "log"):
        low, high = axis.get_view_interval()
        axis.set_major_formatter("{x:g}")  # 0.2, not 2 x 10^-1
        axis.set_minor_formatter("{x:g}" if high < FEW_LABELS * low else "")
    drawn = io.StringIO()
    drawing.savefig(drawn, format="svg")
    picture = drawn.getvalue()
    return f"<figure>{picture[picture.index('<svg') :]}<figcaption>{html.escape(caption)}</figcaption></figure>"


def legend_beside(axes: Any) -> None:
    """Right of the axes, where it hides nothing."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize="small")


def _row(record: Record) -> list[str]:
    """The pictures of one record."""
    steady = " of the steady ones" if record["steady"]["reached"] else ""
    parts = [
        f"<h2>{html.escape(_name(record))}</h2>",
        "" if record["valid"] else f"<p class=best>Invalid: {html.escape(record['invalid_because'])}</p>",
        "<p class=best>An emulated device: that it answers is real, how fast is not.</p>"
        if record["functional_only"]
        else "",
        figure(lambda axes: _histogram(axes, record), f"All {record['n']} runs; the lines are percentiles{steady}."),
        figure(lambda axes: _series(axes, record), _series_caption(record)),
    ]
    if record["profile"]:
        bars = 1.2 + 0.22 * min(MOST_OPERATORS + 1, len(record["profile"]))
        caption = "Mean time of each operator, the longest first, as the runtime's own profiler has it."
        parts.append(titled(profile_table(_name(record), record["profile"])))
        parts.append(figure(lambda axes: _operators(axes, record["profile"]), caption, bars))
    return parts


def _name(record: Record) -> str:
    delegate = f" + {record['delegate']}" if record["delegate"] else ""
    return f"{record['variant']} on {record['runtime']}{delegate} on {record['device']}"


def _labels(records: Sequence[Record]) -> list[str]:
    """As short as tells the rows apart."""
    names = telling((record["runtime"], record["device"]) for record in records)
    return [", ".join(record[name] for name in names) for record in records]


def _shares(axes: Any, records: Sequence[Record]) -> None:
    """The empirical distribution of each record's steady runs."""
    slowest, fastest = 0.0, np.inf
    for k, (record, label) in enumerate(zip(records, _labels(records), strict=True)):
        times = np.sort(record["wall_ms"][record["steady"]["from"] or 0 :])
        axes.step(
            times, np.arange(1, len(times) + 1) / len(times), where="post", label=label, linestyle=LINES[k // 10 % 4]
        )
        slowest, fastest = max(slowest, times[-1]), min(fastest, times[0])
    if slowest > WIDE * fastest:
        axes.set_xscale("log")
    axes.set_xlabel("milliseconds a run")
    axes.set_ylabel("share of runs")
    legend_beside(axes)


def _histogram(axes: Any, record: Record) -> None:
    times = np.asarray(record["wall_ms"])
    edges: Any = 60
    if times.max() > WIDE * times.min() > 0:
        axes.set_xscale("log")
        edges = np.geomspace(times.min(), times.max(), 61)
    axes.hist(times, bins=edges, color=BLUE, alpha=0.7)
    for q, style in ((50, "-"), (90, "--"), (95, "-."), (99, ":")):
        value = record[f"p{q}_ms"]
        if value is not None:
            axes.axvline(value, color=RED, linestyle=style, label=f"p{q} {value:.3g} ms")
    axes.set_xlabel("milliseconds a run")
    axes.set_ylabel("runs")
    if axes.get_legend_handles_labels()[1]:
        axes.legend()


def _series(axes: Any, record: Record) -> None:
    """Every run at its time, where the steady ones begin, and when the device was slowed down."""
    started, times, steady = record["started_s"], record["wall_ms"], record["steady"]
    axes.plot(started, times, ".", color=BLUE, markersize=4, label="a run", rasterized=len(times) > MANY_POINTS)
    if steady["from"] is not None:
        axes.axvline(started[steady["from"]], color=GREEN, label="steady from here")
    readings = [r for r in _readings(record) if "at_s" in r]
    since = started[0]
    label = "throttled"
    for reading in readings:  # that one is about the time since the one before
        if reading["throttled"] is True:
            axes.axvspan(since, reading["at_s"], color=RED, alpha=0.2, label=label)
            label = "_"  # one entry in the legend is enough
        since = max(since, reading["at_s"])
    if max(times) > WIDE * min(times) > 0:
        axes.set_yscale("log")
    axes.set_xlabel("seconds")
    axes.set_ylabel("milliseconds a run")
    axes.legend(loc="upper right")


def _series_caption(record: Record) -> str:
    """Steadiness and conditions in words; what nobody knows is called unknown."""
    readings = _readings(record)
    hot = [r["temperature_c"] for r in readings if isinstance(r.get("temperature_c"), int | float)]
    clocks = [c for r in readings if isinstance(r.get("frequency_mhz"), list) for c in r["frequency_mhz"]]
    clocks = [c for c in clocks if isinstance(c, int | float)]
    states = {r.get("throttled", "unknown") for r in readings}
    throttled = "yes" if True in states else "no" if states == {False} else "unknown"
    placed = "" if throttled != "yes" or any("at_s" in r for r in readings) else ", nobody knows when"
    return (
        f"Every run in its order. {'Steady' if record['steady']['reached'] else 'Not steady'}: "
        f"{record['steady']['why'].rstrip('.')}. Waited for something else: {_yes_or_no(record['contended'])}. "
        f"Throttled: {throttled}{placed}. "
        f"Governor: {', '.join(sorted({str(r.get('governor', 'unknown')) for r in readings})) or 'unknown'}. "
        f"Temperature: {_range(hot, '°C')}. Clock: {_range(clocks, 'MHz')}."
    )


def _yes_or_no(value: bool | str) -> str:
    return value if isinstance(value, str) else "yes" if value else "no"


def _range(values: Sequence[float], unit: str) -> str:
    return f"{min(values):g} to {max(values):g} {unit}" if values else "unknown"


def _readings(record: Record) -> list[Mapping[str, Any]]:
    seen = record["conditions"]
    return [reading for reading in (seen["before"], *seen["during"], seen["after"]) if reading]


def _operators(axes: Any, profile: Sequence[Mapping[str, Any]]) -> None:
    ordered = sorted(profile, key=lambda op: -op["mean_us"])
    bars = [(f"{op['index']} {op['name']}", op["mean_us"], op["share"]) for op in ordered[:MOST_OPERATORS]]
    rest = ordered[MOST_OPERATORS:]
    if rest:
        bars.append((f"{len(rest)} others", sum(op["mean_us"] for op in rest), sum(op["share"] for op in rest)))
    drawn = axes.barh([name for name, _, _ in bars], [us for _, us, _ in bars], color=BLUE)
    axes.bar_label(drawn, [f"{share:.0%}" for _, _, share in bars], padding=3, fontsize="small")
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize="small")
    axes.set_xlabel("microseconds a run")


def _ratios(axes: Any, ratios: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> None:
    """Wall and CPU time one above the other, a row a pair; an interval of too few turns is not drawn."""
    for kind, color, shift in (("wall", BLUE, -0.12), ("cpu", GREY, 0.12)):
        for k, ratio in enumerate(ratios):
            found = ratio[kind]
            if found is None:  # a CPU clock too coarse for these runs
                continue
            label = {"wall": "wall time", "cpu": "CPU time"}[kind] if k == 0 else None
            axes.plot(found["ratio"], k + shift, "o", color=color, label=label)
            axes.plot([found["low"], found["high"]], [k + shift] * 2, color=color)  # draws nothing from None to None
    axes.set_yticks(range(len(ratios)), labels, fontsize="small")
    axes.axvline(1, color=RED, linestyle="--")
    axes.invert_yaxis()
    axes.set_xscale("log")
    to = ratios[0]["to"]
    axes.set_xlabel(f"time over that of {to['variant']} on {to['runtime']} on {to['device']}")
    legend_beside(axes)
