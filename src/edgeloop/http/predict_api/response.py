"""A model's outputs in, the JSON values of a response out. Python 3.9 syntax.

Source: https://www.tensorflow.org/tfx/serving/api_rest (response format)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.errors import TargetError

Arrays = Mapping[str, np.ndarray]
TOP = 5


def format_predictions(specs: Sequence[TensorSpec], outputs: Arrays, row_format: bool) -> dict[str, Any]:
    """TF Serving's response: `predictions`, one per sample, to `instances`; `outputs`, whole tensors, to `inputs`.

    A single output goes without its name. Raises as `format_sample`.
    """
    check_finite(outputs)
    lists = {spec.name: outputs[spec.name].tolist() for spec in specs}
    if not row_format:
        return {"outputs": lists if len(lists) > 1 else next(iter(lists.values()))}
    if len(lists) == 1:
        return {"predictions": next(iter(lists.values()))}
    return {"predictions": [dict(zip(lists, values)) for values in zip(*lists.values())]}


def format_sample(specs: Sequence[TensorSpec], outputs: Arrays, batched: bool) -> dict[str, Any]:
    """A line of `edgeloop run`: of a classifier {label, class, score, top}, else {outputs: {name: nested list}}.

    A classifier has one output whose labels the manifest names, and was given one sample.

    Raises:
        TargetError: The model computed NaN or infinity.
    """
    check_finite(outputs)
    if batched:
        return {"outputs": {name: array.tolist() for name, array in outputs.items()}}
    # an output without a batch axis, as of some detectors, stays as it is
    first = {name: array[0] if array.ndim and len(array) == 1 else array for name, array in outputs.items()}
    if len(specs) == 1 and specs[0].labels:
        scores, labels = first[specs[0].name], specs[0].labels
        if scores.shape == (len(labels),):
            return _top_classes(scores, labels)
    return {"outputs": {name: array.tolist() for name, array in first.items()}}


def check_finite(outputs: Arrays) -> None:
    """Refuse NaN and infinity: JSON cannot hold them, and they are no result. Raises TargetError."""
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise TargetError(
                f"output {name!r} holds NaN or infinity",
                advice="Check that the input is in the range the model was trained on.",
            )


def _top_classes(scores: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    order = np.argsort(-scores.astype(np.float64), kind="stable")[:TOP]
    top = [{"label": labels[i], "class": int(i), "score": float(scores[i])} for i in order]
    return {**top[0], "top": top}
