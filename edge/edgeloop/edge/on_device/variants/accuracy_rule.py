"""A bundle's proof in, which of its variants are accurate enough for a device out.

Accuracy decides, else AUC, else RMSE: what the labels measure. Without labels, the share of samples whose class agrees
with the source's. A variant may lose against the best float variant, without being asked, one percentage point (or one
sample, where few were evaluated) of a share, or 5% of an RMSE. Of a model that has neither, a passed proof is enough.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from edgeloop.bundle import Bundle, Scheme
from edgeloop.edge.on_device.variants.proof_summary import ProofSummary, summarize_proof
from edgeloop.errors import BudgetError, OptionsError
from edgeloop.runtime.parity.proof import read_proof

FLOATS = (Scheme.FLOAT32, Scheme.FLOAT16)
MAX_DROP = 0.01  # of a share
MAX_GROWTH = 0.05  # of an RMSE: a tenth more squared error, as one point less of 90% accuracy is a tenth more errors
EXACT_R2 = 0.9999  # an RMSE of a hundredth of the labels' spread, or less, is told from none by no one
SHARES = {"accuracy": "accuracy", "auc": "AUC", "top1_agreement": "agreement with the source"}


@dataclass(frozen=True)
class AccuracyLimits:
    """What the user requires of a variant's proof; None: as this module's docstring says.

    Attributes:
        min_accuracy: Accuracy on labelled data, or AUC where labels have no accuracy; 0 to 1.
        max_rmse: In the labels' unit.
    """

    min_accuracy: float | None = None
    max_rmse: float | None = None


def accurate_variants(bundle: Bundle, able: Collection[str], limits: AccuracyLimits) -> set[str]:
    """Those of the variants `able` that are accurate enough; at least one.

    Raises:
        OptionsError: A limit on what the bundle's labels did not measure.
        BudgetError: No variant is accurate enough.
    """
    proof = summarize_proof(read_proof(bundle))
    metric = next((m for m in ("accuracy", "auc", "rmse", "top1_agreement") if _known(proof, m)), None)
    asked = {"--min-accuracy": limits.min_accuracy, "--max-rmse": limits.max_rmse}
    fits = {"accuracy": "--min-accuracy", "auc": "--min-accuracy", "rmse": "--max-rmse"}.get(metric or "")
    wrong = next((option for option, value in asked.items() if value is not None and option != fits), None)
    if wrong:
        what, labels = ("accuracy", "labels") if wrong == "--min-accuracy" else ("RMSE", "numbers to predict")
        use = f"Use {fits} instead." if fits else f"Convert with --eval F.npz, which holds {labels} as y."
        raise OptionsError(f"{bundle.path} has no {what} to compare", advice=use)
    if metric is None:
        return set(able)
    if metric == "rmse":
        return _by_rmse(bundle, proof, able, limits.max_rmse)
    return _by_share(bundle, proof, able, metric, limits.min_accuracy)


def _by_share(
    bundle: Bundle, proof: Mapping[str, ProofSummary], able: Collection[str], metric: str, least: float | None
) -> set[str]:
    shares = _known(proof, metric)
    if least is None:
        best = max(((shares[id], id) for id in _floats(bundle) if id in shares), default=None)
        if best is None:
            return set(able)
        least = best[0] - max(MAX_DROP, 1 / proof[best[1]].samples)
    # what JSON rounded must not decide: 0.99 - 0.01 is not 0.98 in binary
    enough = {id for id in able if id in shares and shares[id] >= least - 1e-9}
    if not enough:
        most = max((shares[id] for id in able if id in shares), default=0.0)
        raise BudgetError(
            f"the most accurate variant that fits has {most:.1%} {SHARES[metric]}; the minimum is {least:.1%}",
            advice="Lower --min-accuracy, or convert again.",
        )
    return enough


def _by_rmse(bundle: Bundle, proof: Mapping[str, ProofSummary], able: Collection[str], most: float | None) -> set[str]:
    errors, exact = _known(proof, "rmse"), set()
    if most is None:
        floats = [errors[id] for id in _floats(bundle) if id in errors]
        if not floats:
            return set(able)
        most = (1 + MAX_GROWTH) * min(floats)
        exact = {id for id, r2 in _known(proof, "r2").items() if r2 >= EXACT_R2}
    enough = {id for id in able if id in exact or (id in errors and errors[id] <= most * (1 + 1e-9))}
    if not enough:
        least = min((errors[id] for id in able if id in errors), default=None)
        found = "none of the variants that fit has an RMSE" if least is None else f"the RMSE is {least:.4g} at least"
        raise BudgetError(f"{found}; the maximum is {most:.4g}", advice="Raise --max-rmse, or convert again.")
    return enough


def _known(proof: Mapping[str, ProofSummary], metric: str) -> dict[str, float]:
    return {id: value for id, proved in proof.items() if (value := getattr(proved, metric)) is not None}


def _floats(bundle: Bundle) -> list[str]:
    return [v.id for v in bundle.manifest.variants if v.scheme in FLOATS]
