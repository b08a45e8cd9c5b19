"""The records of a proof in; how accurate each variant is, out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeloop.runtime.parity.compare import Parity


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofSummary:
    """Shares of 0 to 1; None: the model is no classifier or, for `accuracy`, there were no labels."""

    accuracy: float | None
    top1_agreement: float | None
    samples: int


def summarize_proof(records: Sequence[Parity]) -> dict[str, ProofSummary]:
    """By variant id, of the runs over the most samples: a second runtime runs a part of them, and shares of different
    samples do not compare."""
    passed: dict[str, list[Parity]] = {}
    for row in records:
        if row.passed:
            passed.setdefault(row.variant, []).append(row)
    return {variant: _summary(rows) for variant, rows in passed.items()}


def _summary(rows: Sequence[Parity]) -> ProofSummary:
    most = max(row.samples for row in rows)
    whole = [row for row in rows if row.samples == most]
    return ProofSummary(
        accuracy=_worst([row.accuracy for row in whole]),
        top1_agreement=_worst([row.top1_agreement for row in whole]),
        samples=most,
    )


def _worst(shares: Sequence[float | None]) -> float | None:
    return min((share for share in shares if share is not None), default=None)
