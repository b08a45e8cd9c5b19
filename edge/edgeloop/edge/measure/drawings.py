"""Records of a bench in, what is drawn of them on Matplotlib axes out.

Nothing is cut off or smoothed: a spread that looks bad was. Axes of time are logarithmic where the slowest run took
more than five times the fastest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeloop.plots import BLUE, GREEN, GREY, LINES, RED, is_wide, legend_beside

MANY_POINTS = 3000  # above it a cloud of points is a bitmap within the picture: as shapes it would be megabytes
MOST_OPERATORS = 25  # bars that can be read; the rest is one bar

Record = Mapping[str, Any]


def draw_shares(axes: Any, records: Sequence[Record], labels: Sequence[str]) -> None:
    """The empirical distribution of each record's steady runs."""
    slowest, fastest = 0.0, np.inf
    for k, (record, label) in enumerate(zip(records, labels, strict=True)):
        times = np.sort(record["wall_ms"][record["steady"]["from"] or 0 :])
        axes.step(
            times, np.arange(1, len(times) + 1) / len(times), where="post", label=label, linestyle=LINES[k // 10 % 4]
        )
        slowest, fastest = max(slowest, times[-1]), min(fastest, times[0])
    if is_wide([fastest, slowest]):
        axes.set_xscale("log")
    axes.set_xlabel("milliseconds per run")
    axes.set_ylabel("share of runs")
    legend_beside(axes)


def draw_latency(axes: Any, records: Sequence[Record], labels: Sequence[str]) -> None:
    """A row each: a line from the median to the 90th percentile, with the interval of the latter above it."""
    drawn = []
    for k, record in enumerate(records):
        middle, slow, interval = record["p50_ms"], record["p90_ms"], record["p90_interval_ms"]
        drawn += [value for value in (middle, slow, *(interval or ())) if value is not None]
        if None not in (middle, slow):
            axes.plot([middle, slow], [k, k], color=BLUE)
        for value, marker, name in ((middle, "o", "p50"), (slow, "|", "p90")):
            if value is not None:
                axes.plot(value, k, marker, color=BLUE, markersize=9, label=name if k == 0 else None)
        if interval:
            label = "95% interval of p90" if k == 0 else None
            axes.plot(interval, [k - 0.25] * 2, color=GREY, linewidth=3, solid_capstyle="butt", label=label)
    axes.set_yticks(range(len(records)), labels, fontsize="small")
    axes.invert_yaxis()
    if drawn and is_wide(drawn):
        axes.set_xscale("log")
    axes.set_xlabel("milliseconds per call")
    legend_beside(axes)


def draw_histogram(axes: Any, record: Record) -> None:
    times = np.asarray(record["wall_ms"])
    edges: Any = 60
    if is_wide(record["wall_ms"]):
        axes.set_xscale("log")
        edges = np.geomspace(times.min(), times.max(), 61)
    axes.hist(times, bins=edges, color=BLUE, alpha=0.7)
    for q, style in ((50, "-"), (90, "--"), (95, "-."), (99, ":")):
        value = record[f"p{q}_ms"]
        if value is not None:
            axes.axvline(value, color=RED, linestyle=style, label=f"p{q} {value:.3g} ms")
    axes.set_xlabel("milliseconds per run")
    axes.set_ylabel("runs")
    if axes.get_legend_handles_labels()[1]:
        axes.legend()


def draw_series(axes: Any, record: Record) -> None:
    """Every run at its time, where the steady ones begin, and when the device was slowed down."""
    started, times, steady = record["started_s"], record["wall_ms"], record["steady"]
    axes.plot(started, times, ".", color=BLUE, markersize=4, label="one run", rasterized=len(times) > MANY_POINTS)
    if steady["from"] is not None:
        axes.axvline(started[steady["from"]], color=GREEN, label="steady from here")
    timed = [r for r in readings(record) if "at_s" in r]
    since = started[0]
    label = "throttled"
    for reading in timed:  # that one is about the time since the one before
        if reading["throttled"] is True:
            axes.axvspan(since, reading["at_s"], color=RED, alpha=0.2, label=label)
            label = "_"  # one entry in the legend is enough
        since = max(since, reading["at_s"])
    if is_wide(times):
        axes.set_yscale("log")
    axes.set_xlabel("seconds")
    axes.set_ylabel("milliseconds per run")
    axes.legend(loc="upper right")


def draw_operators(axes: Any, profile: Sequence[Mapping[str, Any]]) -> None:
    ordered = sorted(profile, key=lambda op: -op["mean_us"])
    bars = [(f"{op['index']} {op['name']}", op["mean_us"], op["share"]) for op in ordered[:MOST_OPERATORS]]
    rest = ordered[MOST_OPERATORS:]
    if rest:
        bars.append((f"{len(rest)} others", sum(op["mean_us"] for op in rest), sum(op["share"] for op in rest)))
    drawn = axes.barh([name for name, _, _ in bars], [us for _, us, _ in bars], color=BLUE)
    axes.bar_label(drawn, [f"{share:.0%}" for _, _, share in bars], padding=3, fontsize="small")
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize="small")
    axes.set_xlabel("microseconds per run")


def draw_ratios(axes: Any, ratios: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> None:
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
    axes.set_xlabel(f"time relative to {to['variant']} on {to['runtime']} on {to['device']}")
    legend_beside(axes)


def readings(record: Record) -> list[Mapping[str, Any]]:
    """What the device reported of its conditions: before, between the turns, after."""
    seen = record["conditions"]
    return [reading for reading in (seen["before"], *seen["during"], seen["after"]) if reading]
