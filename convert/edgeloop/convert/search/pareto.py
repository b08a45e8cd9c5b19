"""Candidates of a search in, their Pareto front and the document of the search out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeloop.convert.search.candidate import MixCandidate
    from edgeloop.convert.search.metric import Metric
    from edgeloop.convert.search.search import SearchResult


def pareto_front(candidates: Sequence[MixCandidate], metric: Metric) -> tuple[MixCandidate, ...]:
    """Those that no other beats: no larger, no less accurate, no slower, and better in one. The smallest first."""
    costs = [(c.bytes, metric.badness(c.measured.value), c.measured.latency_ratio) for c in candidates]
    best = [(own, c) for own, c in zip(costs, candidates, strict=True) if not any(_beats(o, own) for o in costs)]
    return tuple(c for _, c in sorted(best, key=lambda pair: pair[0]))


def search_document(found: SearchResult) -> dict[str, Any]:
    """What `--json` says of a search: `best` and `front` are positions in `tried`; `unit` is that of a drop."""
    source = found.budget.source
    return {
        "metric": source.metric.value,
        "unit": source.metric.unit,
        "reference": source.value,
        "max_drop": found.budget.max_drop,
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
        "value": measured.value,
        "drop": found.budget.drop(candidate),
        "snr_db": measured.snr_db,
        "latency_ms": measured.latency_ms,
        "latency_ratio": measured.latency_ratio,
        "passed": measured.passed,
        "holds": found.budget.holds(candidate),
    }


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
