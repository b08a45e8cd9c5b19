"""proof.json in; how accurate each variant is, out."""

from __future__ import annotations

from dataclasses import dataclass

from edgeloop.bundle import PROOF, Bundle
from edgeloop.canonical import read_json
from edgeloop.errors import IntegrityError, ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofSummary:
    """Shares of 0 to 1; None: the model is no classifier or, for `accuracy`, there were no labels."""

    accuracy: float | None
    top1_agreement: float | None
    samples: int


def read_proof(bundle: Bundle) -> dict[str, ProofSummary]:
    """By variant id, of the runs over the most samples: a second runtime runs a part of them, and shares of different
    samples do not compare. Empty where the bundle carries no proof.

    Raises:
        IntegrityError: It belongs to another bundle.
        ModelError: It breaks the format.
    """
    file = bundle.file(PROOF)
    if not file.is_file():
        return {}
    raw = read_json(file.read_bytes(), PROOF)
    if raw.get("manifest_sha256") != bundle.manifest_sha256:
        raise IntegrityError(
            f"{file} belongs to another manifest", advice="Fetch the bundle again, or delete that file."
        )
    try:
        evaluated = raw["evaluation"]["samples"]
        rows: dict[str, list[tuple[int, dict]]] = {}
        for row in raw["parity"]:
            if row["passed"]:
                rows.setdefault(row["variant"], []).append((int(row.get("samples", evaluated)), row))
        return {variant: _proved(found) for variant, found in rows.items()}
    except (KeyError, TypeError, ValueError) as e:
        raise ModelError(
            f"{file} does not follow the format ({type(e).__name__}: {e})",
            advice="Expected what docs/bundle.md describes.",
        ) from e


def _proved(rows: list[tuple[int, dict]]) -> ProofSummary:
    most = max(samples for samples, _ in rows)
    whole = [row for samples, row in rows if samples == most]
    return ProofSummary(
        accuracy=_worst([row["accuracy"] for row in whole]),
        top1_agreement=_worst([row["top1_agreement"] for row in whole]),
        samples=most,
    )


def _worst(shares: list[float | None]) -> float | None:
    known = [float(share) for share in shares if share is not None]
    return min(known) if known else None
