"""One drawer for every picture of a report: Matplotlib axes in, inline SVG out.

Where Matplotlib is not installed a report keeps its tables, and a line says what to install.
"""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Sequence
from typing import Any

from edgeloop.errors import MissingExtra
from edgeloop.extras import need

BLUE, GREY, RED, GREEN = "#06c", "#888", "#c22", "#282"
LINES = ("-", "--", ":", "-.")  # one for each round of Matplotlib's ten colours
MARKERS = "osD^v<>PX*"  # points of equal size and accuracy lie on each other
WIDTH_IN, HEIGHT_IN = 9, 3.6
WIDE = 5.0  # largest over smallest value, above which an axis is logarithmic
REACH = 0.03, 0.04  # of the ranges of x and y: two markers' widths, one's height on WIDTH_IN by HEIGHT_IN
MARKER_IN = 0.13
FEW_LABELS = 30  # last over first mark of a logarithmic axis, above which every second one would hide the next

Draw = Callable[[Any], None]


def lacking() -> str:
    """What to install before a plot can be drawn; empty where nothing is missing."""
    try:
        _figures()
    except MissingExtra as e:
        return f"The report has no plots: {e}"
    return ""


def figure(draw: Draw, caption: str, height_in: float = HEIGHT_IN) -> str:
    """What `draw` puts on Matplotlib axes, as inline SVG with a caption; 9 inches wide before the page scales it.

    Empty where Matplotlib is missing: `lacking` says so once for the whole page.
    """
    if lacking():
        return ""
    drawing = _figures().Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    axes = drawing.add_subplot()
    axes.grid(alpha=0.3)
    draw(axes)
    for axis in (axis for axis in (axes.xaxis, axes.yaxis) if axis.get_scale() == "log"):
        low, high = axis.get_view_interval()
        if high > WIDE * low:
            axis.get_minor_locator().set_params(subs=(2, 5))
        axis.set_major_formatter("{x:g}")  # 0.2, not 2 x 10^-1
        axis.set_minor_formatter("{x:g}" if high < FEW_LABELS * low else "")
    drawn = io.StringIO()
    drawing.savefig(drawn, format="svg")
    picture = drawn.getvalue()
    shown = f"<div class=scroll>{picture[picture.index('<svg') :]}</div>"
    return f"<figure>{shown}<figcaption>{html.escape(caption)}</figcaption></figure>"


def legend_beside(axes: Any) -> None:
    """Right of the axes, where it hides nothing."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize="small")


def side_by_side(points: Sequence[tuple[float, float]]) -> list[float]:
    """How many marker widths to move each point to the right, so that markers do not cover each other.

    Points that lie closer than REACH of both ranges form a row, in their order, around their places.
    """
    spans = [max(max(values) - min(values), 1e-12) for values in zip(*points, strict=True)]
    rows: list[list[int]] = []
    for k, point in enumerate(points):
        near = [row for row in rows if any(_close(points[other], point, spans) for other in row)]
        if near:
            near[0].append(k)
        else:
            rows.append([k])
    moved = [0.0] * len(points)
    for row in rows:
        for place, k in enumerate(sorted(row, key=lambda k: points[k])):
            moved[k] = place - (len(row) - 1) / 2
    return moved


def moved_right(axes: Any, markers: float) -> Any:
    """The transform that draws data so many marker widths further right."""
    shift = need("matplotlib.transforms", extra="plots").ScaledTranslation
    return axes.transData + shift(markers * MARKER_IN, 0, axes.figure.dpi_scale_trans)


def is_wide(values: Sequence[float]) -> bool:
    """Whether positive values spread so far that an axis of them has to be logarithmic."""
    return max(values) > WIDE * min(values) > 0


def limits(values: Sequence[float], least: float = 1.0) -> tuple[float, float]:
    """Ends of an axis with room around its values; values closer than `least` are not blown up to a zoomed-in line."""
    room = 0.1 * max(least, max(values) - min(values))
    middle, half = (max(values) + min(values)) / 2, max(least, max(values) - min(values)) / 2
    return middle - half - room, middle + half + room


def _close(one: tuple[float, float], other: tuple[float, float], spans: Sequence[float]) -> bool:
    return all(abs(a - b) <= reach * span for a, b, reach, span in zip(one, other, REACH, spans, strict=True))


def _figures() -> Any:
    return need("matplotlib.figure", extra="plots")  # no pyplot: no global state and no window system
