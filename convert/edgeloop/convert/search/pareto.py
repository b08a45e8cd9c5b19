"""Candidates of a search in, their Pareto front out: as a picture, as a page that needs nothing beside it, as JSON."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgeloop.page import page, table

if TYPE_CHECKING:
    from edgeloop.convert.search.candidate import MixCandidate
    from edgeloop.convert.search.search import SearchResult

WIDTH, HEIGHT = 900, 380
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 20, 50  # of the drawing, room for the axes
NAME_PX = 150, 13  # room of one name
RADIUS = 5.0  # of a candidate as fast as float32; the area is the latency


def pareto_front(candidates: Sequence[MixCandidate]) -> tuple[MixCandidate, ...]:
    """Those that no other beats: no larger, no less accurate, no slower, and better in one. The smallest first."""
    best = [c for c in candidates if not any(_beats(_costs(other), _costs(c)) for other in candidates)]
    return tuple(sorted(best, key=_costs))


def pareto_svg(
    candidates: Sequence[MixCandidate], reference: float | None = None, best: MixCandidate | None = None
) -> str:
    """Size against accuracy, a circle a candidate whose area is its latency; full ones are on the front over all
    three. The line joins those that no smaller candidate equals in accuracy; dashed is the source's own accuracy.
    `best`, the plain schemes and the front are named, in this order, where no other name is in the way."""
    if not candidates:
        return ""
    front = pareto_front(candidates)
    x, x_ticks = _scale([0.0, *(c.bytes / 1e3 for c in candidates)], LEFT, WIDTH - RIGHT)
    accuracies = [100 * c.measured.accuracy for c in candidates] + ([] if reference is None else [100 * reference])
    y, y_ticks = _scale(accuracies, HEIGHT - BOTTOM, TOP)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-size="12" role="img">']
    for tick in x_ticks:
        parts.append(_line(x(tick), TOP, x(tick), HEIGHT - BOTTOM, "#8884"))
        parts.append(_text(x(tick), HEIGHT - BOTTOM + 18, f"{tick:g}", "middle"))
    for tick in y_ticks:
        parts.append(_line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "#8884"))
        parts.append(_text(LEFT - 8, y(tick) + 4, f"{tick:g}", "end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "size, kB", "middle"))
    parts.append(_text(LEFT, TOP - 6, "accuracy, %", "middle"))
    if reference is not None:
        parts.append(_line(LEFT, y(100 * reference), WIDTH - RIGHT, y(100 * reference), "#888", dashed=True))
    joined = " ".join(f"{x(c.bytes / 1e3):.1f},{y(100 * c.measured.accuracy):.1f}" for c in _staircase(candidates))
    parts.append(f'<polyline points="{joined}" fill="none" stroke="#06c" stroke-width="1.5"/>')
    for candidate in candidates:
        parts.append(_circle(candidate, x(candidate.bytes / 1e3), y(100 * candidate.measured.accuracy), front))
    taken: list[tuple[float, float]] = []
    named = sorted((c for c in candidates if c in front or not c.keep), key=lambda c: (c is not best, bool(c.keep)))
    for candidate in named:
        at = x(candidate.bytes / 1e3) + _radius(candidate) + 3, y(100 * candidate.measured.accuracy) - 4
        if all(abs(at[0] - other[0]) > NAME_PX[0] or abs(at[1] - other[1]) > NAME_PX[1] for other in taken):
            parts.append(_text(*at, candidate.label, "start"))
            taken.append(at)
    return "".join(parts) + "</svg>"


def report_html(name: str, found: SearchResult, metric: str) -> str:
    """A page about one search; `metric` says what its accuracy is: `accuracy`, `top-1 agreement with the source`."""
    lost = found.budget.drop_pp(found.best)
    intro = (
        f"{found.best.label}: {found.best.bytes:,} bytes, {found.best.measured.accuracy:.2%}, {lost:.2f} points below "
        f"the source's {found.budget.reference:.2%}; {found.budget.max_drop_pp:g} were allowed. The budget is on "
        f"{metric}. {len(found.tried) + len(found.refused)} mixes were tried."
    )
    caption = (
        "Size against accuracy. A circle's area is its latency; a full one is on the front of size, accuracy and "
        "latency. The dashed line is the source."
    )
    columns = ("mix", "bytes", metric, "drop, points", "SNR dB", "latency / float32", "ms", "front", "verdict")
    ordered = sorted(found.tried, key=_costs)
    picture = pareto_svg(found.tried, found.budget.reference, found.best)
    parts = [
        f"<h1>{html.escape(name)}: the smallest mix within budget</h1><p>{html.escape(intro)}</p>",
        f"<figure>{picture}<figcaption>{caption}</figcaption></figure>",
        "<p>Latencies are medians of runs interleaved with float32's; the ratio holds, milliseconds on a shared "
        "machine do not.</p>",
        table(columns, [_row(candidate, found) for candidate in ordered], ordered.index(found.best)),
        f"<h2>What stays out of {html.escape(found.best.scheme.value)}</h2>" if found.best.keep else "",
        table(("operator", "scheme"), [(k, s.value) for k, s in found.best.keep.items()]) if found.best.keep else "",
        "<h2>Refused</h2>" if found.refused else "",
        table(("scheme", "kept", "why"), [(r.scheme.value, len(r.keep), r.reason) for r in found.refused])
        if found.refused
        else "",
    ]
    return page(name, parts)


def search_document(found: SearchResult, metric: str) -> dict[str, Any]:
    """What `--json` says of a search: `best` and `front` are positions in `tried`."""
    return {
        "metric": metric,
        "reference": found.budget.reference,
        "max_drop_pp": found.budget.max_drop_pp,
        "evaluations": len(found.tried) + len(found.refused),
        "resumed": found.resumed,
        "best": found.tried.index(found.best),
        "front": [found.tried.index(candidate) for candidate in found.front],
        "tried": [_candidate(candidate, found) for candidate in found.tried],
        "refused": [
            {"scheme": r.scheme.value, "keep": {k: s.value for k, s in r.keep.items()}, "reason": r.reason}
            for r in found.refused
        ],
    }


def _candidate(candidate: MixCandidate, found: SearchResult) -> dict[str, Any]:
    measured = candidate.measured
    return {
        "label": candidate.label,
        "scheme": candidate.scheme.value,
        "keep": {name: scheme.value for name, scheme in candidate.keep.items()},
        "bytes": candidate.bytes,
        "sha256": candidate.sha256,
        "accuracy": measured.accuracy,
        "drop_pp": found.budget.drop_pp(candidate),
        "snr_db": measured.snr_db,
        "latency_ms": measured.latency_ms,
        "latency_ratio": measured.latency_ratio,
        "passed": measured.passed,
        "holds": found.budget.holds(candidate),
    }


def _costs(candidate: MixCandidate) -> tuple[float, float, float]:
    return candidate.bytes, -candidate.measured.accuracy, candidate.measured.latency_ratio


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def _staircase(candidates: Sequence[MixCandidate]) -> list[MixCandidate]:
    """The front over size and accuracy alone, which a line can join."""
    steps: list[MixCandidate] = []
    for candidate in sorted(candidates, key=_costs):
        if not steps or candidate.measured.accuracy > steps[-1].measured.accuracy:
            steps.append(candidate)
    return steps


def _row(candidate: MixCandidate, found: SearchResult) -> tuple[str, ...]:
    measured, drop = candidate.measured, found.budget.drop_pp(candidate)
    verdict = "best" if candidate is found.best else "holds" if found.budget.holds(candidate) else "over budget"
    return (
        candidate.label,
        f"{candidate.bytes:,}",
        f"{measured.accuracy:.2%}",
        f"{drop:.2f}",
        "exact" if measured.snr_db is None else f"{measured.snr_db:.1f}",
        f"{measured.latency_ratio:.2f}",
        f"{measured.latency_ms:.3f}",
        "yes" if candidate in found.front else "",
        verdict if measured.passed else "fails the proof",
    )


def _circle(candidate: MixCandidate, x: float, y: float, front: Sequence[MixCandidate]) -> str:
    measured = candidate.measured
    fill = "#06c" if candidate in front else "none"
    tip = (
        f"{candidate.label}: {candidate.bytes:,} bytes, {measured.accuracy:.2%}, {measured.latency_ratio:.2f}x float32"
    )
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_radius(candidate):.1f}" fill="{fill}" fill-opacity=".7" stroke="#06c">'
        f"<title>{html.escape(tip)}</title></circle>"
    )


def _radius(candidate: MixCandidate) -> float:
    return RADIUS * math.sqrt(min(16.0, max(0.1, candidate.measured.latency_ratio)))  # 16: more would hide neighbours


def _scale(values: Sequence[float], low: float, high: float) -> tuple[Callable[[float], float], list[float]]:
    """Values to pixels, and round values to mark; a little room at the ends."""
    first, last = min(values), max(values)
    span = max(last - first, 1.0)  # equal accuracies must not blow up to a zoomed-in line
    first, last = (first if first == 0 else first - 0.08 * span), last + 0.12 * span
    step = 10.0 ** math.floor(math.log10((last - first) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (last - first) / (step * factor) <= 8)
    ticks = [round(k * step, 9) for k in range(math.ceil(first / step), math.floor(last / step) + 1)]
    return (lambda value: low + (value - first) / (last - first) * (high - low)), ticks


def _line(x1: float, y1: float, x2: float, y2: float, color: str, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"{dash}/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#333">{html.escape(text)}</text>'
