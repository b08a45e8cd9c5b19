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
        axis.set_major_formatter("{x:g}")  # 0.2, not 2 x 10^-1
        axis.set_minor_formatter("{x:g}" if high < FEW_LABELS * low else "")
    drawn = io.StringIO()
    drawing.savefig(drawn, format="svg")
    picture = drawn.getvalue()
    return f"<figure>{picture[picture.index('<svg') :]}<figcaption>{html.escape(caption)}</figcaption></figure>"


def legend_beside(axes: Any) -> None:
    """Right of the axes, where it hides nothing."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize="small")


def is_wide(values: Sequence[float]) -> bool:
    """Whether positive values spread so far that an axis of them has to be logarithmic."""
    return max(values) > WIDE * min(values) > 0


def limits(values: Sequence[float], least: float = 1.0) -> tuple[float, float]:
    """Ends of an axis with room around its values; values closer than `least` are not blown up to a zoomed-in line."""
    room = 0.1 * max(least, max(values) - min(values))
    middle, half = (max(values) + min(values)) / 2, max(least, max(values) - min(values)) / 2
    return middle - half - room, middle + half + room


def _figures() -> Any:
    return need("matplotlib.figure", extra="plots")  # no pyplot: no global state and no window system
