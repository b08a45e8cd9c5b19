"""The document of a search in, a page about it out that needs nothing beside it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeloop.convert.search.metric import Metric
from edgeloop.page import bundle_line, page, table, written
from edgeloop.plots import BLUE, GREY, figure, lacking, limits, moved_right, side_by_side

POINT = 60.0  # area of a mix as fast as float32, in square points; the area is the latency
MOST = 16.0  # times that area: more would hide neighbours
NAME = 0.2, 0.06  # room of one name, as shares of the picture
COLUMNS = ("SNR dB", "latency relative to float32", "latency, ms", "Pareto front", "result")

Mix = Mapping[str, Any]


def search_report(name: str, document: Mapping[str, Any], bundle: Path, path: Path) -> str:
    """A page about one search, to be written at `path`; `document` is what `search_document` gives, or
    `OUT.search.json` holds. A search draws nothing at random, so it has no seed."""
    tried, metric = document["tried"], Metric(document["metric"])
    best = tried[document["best"]]
    ordered = sorted(range(len(tried)), key=lambda k: (tried[k]["bytes"], metric.badness(tried[k]["value"])))
    caption = (
        f"Size and {metric} of each mix. The area of a point shows the latency; a filled point is on the Pareto front "
        f"of size, {metric} and latency. Points that would cover each other stand side by side. The dashed line is the "
        "source model."
    )
    parts = [
        f"<h1>{html.escape(name)}: the smallest mix of schemes within the accuracy budget</h1>",
        f"<p>{html.escape(_summary(best, document))}</p>",
        f"<p>{html.escape(written())} A search has no seed: it draws nothing at random.</p>",
        bundle_line(bundle, path),
        f"<p>{html.escape(lacking())}</p>" if lacking() else "",
        figure(lambda axes: draw_front(axes, document), caption, 4.5),
        "<p>Each latency is the median of runs that were interleaved with runs of float32. Compare the ratios: "
        "milliseconds vary on a shared machine.</p>",
    ]
    rows = [_row(index, document) for index in ordered]
    parts += [
        table(
            ("mix", "bytes", metric.value, f"drop, {metric.unit}", *COLUMNS), rows, best=ordered.index(document["best"])
        )
    ]
    if best["keep"]:
        parts += [f"<h2>Operators of {html.escape(best['label'])} that are not {html.escape(best['scheme'])}</h2>"]
        parts += [table(("operator", "scheme"), list(best["keep"].items()))]
    if document["refused"]:
        rows = [(mix["scheme"], str(len(mix["keep"])), mix["reason"]) for mix in document["refused"]]
        parts += ["<h2>Mixes that could not be converted or run</h2>"]
        parts += [table(("scheme", "operators in another scheme", "reason"), rows)]
    return page(name, parts)


def draw_front(axes: Any, document: Mapping[str, Any]) -> None:
    """Every mix by size and accuracy. The line joins those that no smaller mix equals in accuracy; `best`, the plain
    schemes and the front are named, in this order, where no other name is in the way."""
    tried, front, metric = document["tried"], set(document["front"]), Metric(document["metric"])
    points = [_at(mix, metric) for mix in tried]
    moved = side_by_side(points)
    for index, mix in enumerate(tried):
        area = POINT * min(MOST, max(0.1, mix["latency_ratio"]))
        filled = BLUE if index in front else "none"
        place = moved_right(axes, moved[index])
        axes.scatter(*points[index], s=area, facecolor=filled, edgecolor=BLUE, alpha=0.7, transform=place)
    steps = [_at(mix, metric) for mix in _staircase(tried, metric)]
    axes.plot([x for x, _ in steps], [y for _, y in steps], color=BLUE)
    source = metric.drawn(document["reference"])
    axes.axhline(source, linestyle="--", color=GREY)
    right = 1.2 * max(mix["bytes"] for mix in tried) / 1e3  # room for the name of the largest
    low, high = limits([source, *(_at(mix, metric)[1] for mix in tried)])
    axes.set_xlim(0, right)
    axes.set_ylim(low, high)
    axes.set_xlabel("size, kB")
    axes.set_ylabel(metric.axis)
    for mix in _named(document, right, high - low):
        axes.annotate(mix["label"], _at(mix, metric), xytext=(8, 4), textcoords="offset points", fontsize="small")


def _named(document: Mapping[str, Any], width: float, height: float) -> list[Mix]:
    tried, front, best = document["tried"], document["front"], document["best"]
    metric = Metric(document["metric"])
    order = sorted(range(len(tried)), key=lambda k: (k != best, bool(tried[k]["keep"])))
    named: list[Mix] = []
    for mix in (tried[k] for k in order if k in front or not tried[k]["keep"]):
        x, y = _at(mix, metric)
        others = [_at(other, metric) for other in named]
        if all(abs(x - a) > NAME[0] * width or abs(y - b) > NAME[1] * height for a, b in others):
            named.append(mix)
    return named


def _at(mix: Mix, metric: Metric) -> tuple[float, float]:
    """Kilobytes, and percent or an RMSE."""
    return mix["bytes"] / 1e3, metric.drawn(mix["value"])


def _staircase(tried: Sequence[Mix], metric: Metric) -> list[Mix]:
    """The front over size and accuracy alone, which a line can join."""
    steps: list[Mix] = []
    for mix in sorted(tried, key=lambda mix: (mix["bytes"], metric.badness(mix["value"]))):
        if not steps or metric.badness(mix["value"]) < metric.badness(steps[-1]["value"]):
            steps.append(mix)
    return steps


def _summary(best: Mix, document: Mapping[str, Any]) -> str:
    metric = Metric(document["metric"])
    drop = metric.drop_text(best["drop"], document["reference"])
    return (
        f"{best['label']}: {best['bytes']:,} bytes, {metric.text(best['value'])}, {drop}; the budget is "
        f"{metric.limit(document['max_drop'])}. {document['evaluations']} mixes were tried."
    )


def _row(index: int, document: Mapping[str, Any]) -> tuple[str, ...]:
    mix = document["tried"][index]
    result = "best" if index == document["best"] else "within budget" if mix["holds"] else "over budget"
    return (
        mix["label"],
        f"{mix['bytes']:,}",
        Metric(document["metric"]).text(mix["value"]),
        f"{mix['drop']:.2f}",
        "exact" if mix["snr_db"] is None else f"{mix['snr_db']:.1f}",
        f"{mix['latency_ratio']:.2f}",
        f"{mix['latency_ms']:.3f}",
        "yes" if index in document["front"] else "",
        result if mix["passed"] else "fails the proof",
    )
