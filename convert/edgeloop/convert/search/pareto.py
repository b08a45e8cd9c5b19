"""Candidates of a search in, their Pareto front and the document of the search out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeloop.convert.search.candidate import MixCandidate
    from edgeloop.convert.search.search import SearchResult


def pareto_front(candidates: Sequence[MixCandidate]) -> tuple[MixCandidate, ...]:
    """Those that no other beats: no larger, no less accurate, no slower, and better in one. The smallest first."""
    best = [c for c in candidates if not any(_beats(_costs(other), _costs(c)) for other in candidates)]
    return tuple(sorted(best, key=_costs))


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
