"""The proof of a bundle in; whether its variants are good enough beside the model that was converted out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeloop.bundle import PROOF, Bundle, Signature
from edgeloop.canonical import read_json
from edgeloop.convert.search.metric import Metric, SourceScore, rmse_score
from edgeloop.errors import BudgetError, DataError, ModelError
from edgeloop.runtime.parity.compare import Parity

METRICS = {metric.value.lower(): metric for metric in (Metric.ACCURACY, Metric.AUC, Metric.RMSE)}
ROUNDING = 1e-9  # 92.5 - 92 is 0.5000000000000004 points


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the Keras model and the variants came to on the same data, all of it.

    Attributes:
        metric: `accuracy`, `auc` or `rmse`.
        source: Of the Keras model.
        variants: Of each variant, on the worst of its runtimes.
        unit: An RMSE grows by per cent of this, which is the unit of its `SourceScore`; 1 of shares.
    """

    metric: str
    source: float
    variants: Mapping[str, float]
    unit: float = 1.0

    def drop(self, variant: str) -> float:
        """Percentage points below the Keras model, or per cent of an RMSE above it."""
        score = SourceScore(metric=METRICS[self.metric], value=self.source, unit=self.unit)
        return score.drop(self.variants[variant])

    @property
    def worst(self) -> str:
        """The variant that loses most."""
        return max(self.variants, key=self.drop)

    def check(self, max_drop: float) -> None:
        """Raises BudgetError where a variant loses more than `max_drop`: the worst one is named."""
        worst = self.worst
        metric, drop = METRICS[self.metric], self.drop(worst)
        if drop > max_drop + ROUNDING:
            raise BudgetError(
                f"{worst} has {metric.value} {metric.text(self.variants[worst])}, "
                f"{metric.drop_text(drop, self.source)}, and {metric.limit(max_drop)} may be lost",
                advice="Train for more rounds, give more calibration samples, or raise [cloud] max-drop.",
            )


def verdict_of(bundle: Bundle, rows: Sequence[Parity], labelled: Path) -> Verdict:
    """What the proof of a conversion with the labelled data says.

    Raises:
        DataError: The labels are not of this model's kind.
    """
    evaluation = read_json(bundle.file(PROOF).read_bytes(), PROOF)["evaluation"]
    metric = evaluation["metric"]
    if metric not in METRICS:
        raise DataError(
            "[cloud] eval has no labels y that fit the model", advice="Give one label for each sample, as in a shard."
        )
    sign = METRICS[metric].badness(1.0)
    variants: dict[str, float] = {}
    for row in rows:
        value = getattr(row, metric)
        if value is not None:
            variants[row.variant] = max(value, variants.get(row.variant, value), key=lambda one: sign * one)
    source = float(evaluation["source"][metric])
    if METRICS[metric] is not Metric.RMSE:
        return Verdict(metric=metric, source=source, variants=variants)
    with np.load(labelled, allow_pickle=False) as arrays:
        unit = rmse_score(source, arrays["y"]).unit
    return Verdict(metric=metric, source=source, variants=variants, unit=unit)


def check_replaces(old: Bundle, new: Bundle) -> None:
    """See that devices which run `old` can run `new` in its place: variants, inputs, outputs and weights.

    Raises:
        ModelError: They cannot.
    """
    missing = [variant.id for variant in old.manifest.variants if variant.id not in _ids(new)]
    if missing:
        reasons = [one.reason for one in new.manifest.left_out if one.id == missing[0]]
        why = f" ({reasons[0]})" if reasons else ""
        raise ModelError(
            f"the release would lack the variant {missing[0]}{why}, which {old.path} has",
            advice="Name what it needs in [cloud.convert], e.g. calibration.",
        )
    for name, signature in old.manifest.signatures.items():
        other = new.manifest.signatures.get(name)
        if other is None or _tensors(signature) != _tensors(other):
            raise ModelError(
                f"the signature {name} of the release would not be that of {old.path}",
                advice="Give [cloud.convert] the options that the bundle was converted with.",
            )
    if old.manifest.weights and old.manifest.weights != new.manifest.weights:
        raise ModelError(
            f"devices would not train the same weights as those of {old.path}",
            advice="Give [cloud.convert.trainable] the options that the bundle was converted with, e.g. train-last.",
        )


def _ids(bundle: Bundle) -> set[str]:
    return {variant.id for variant in bundle.manifest.variants}


def _tensors(signature: Signature) -> list[tuple[object, ...]]:
    return [(t.name, t.shape, t.dtype, t.labels) for t in (*signature.inputs, *signature.outputs)]
