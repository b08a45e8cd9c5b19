"""The records of a proof in; how accurate each variant is, out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from edgeloop.runtime.parity.compare import Parity


@dataclass(frozen=True)
class ProofSummary:
    """The metrics of docs/bundle.md, of the worst runtime; None: not one of this model's, or there were no labels."""

    accuracy: float | None
    top1_agreement: float | None
    samples: int
    auc: float | None = None
    rmse: float | None = None
    r2: float | None = None


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
        accuracy=_worst(row.accuracy for row in whole),
        top1_agreement=_worst(row.top1_agreement for row in whole),
        samples=most,
        auc=_worst(row.auc for row in whole),
        rmse=_worst((row.rmse for row in whole), max),
        r2=_worst(row.r2 for row in whole),
    )


def _worst(values: Iterable[float | None], worse: Callable[[list[float]], float] = min) -> float | None:
    known = [value for value in values if value is not None]
    return worse(known) if known else None
