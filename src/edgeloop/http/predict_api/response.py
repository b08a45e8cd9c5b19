"""A model's outputs in, the JSON values of a response out. Python 3.9 syntax.

Source: https://www.tensorflow.org/tfx/serving/api_rest (response format)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.errors import DataError, TargetError

Arrays = Mapping[str, np.ndarray]
TOP = 5
VALUES = 1 << 22  # of a response: some 80 MB of text


def check_response_size(specs: Sequence[TensorSpec], samples: int) -> None:
    """Refuse a request whose response would hold more than VALUES numbers, as far as the sizes are known.

    Raises:
        DataError: It would.
    """
    values = samples * sum(math.prod(size or 1 for size in spec.shape[1:]) for spec in specs)
    if values > VALUES:
        raise DataError(
            f"the response to {samples} samples would hold {values} numbers; the limit is {VALUES}",
            advice="Send fewer samples at a time.",
        )


def write_predictions(specs: Sequence[TensorSpec], outputs: Arrays, row_format: bool) -> bytes:
    """TF Serving's response, as JSON: `predictions`, one per sample, to `instances`; `outputs`, whole tensors, to
    `inputs`. A single output goes without its name.

    It is written sample by sample: `json.dumps` of all of them at once would hold up every other client.

    Raises:
        TargetError: The model computed NaN or infinity.
    """
    check_finite(outputs)
    if not row_format:
        columns = {spec.name: _list(outputs[spec.name]) for spec in specs}
        named = ", ".join(f"{json.dumps(name)}: {text}" for name, text in columns.items())
        return f'{{"outputs": {f"{{{named}}}" if len(columns) > 1 else next(iter(columns.values()))}}}'.encode()
    if len(specs) == 1:
        return f'{{"predictions": {_list(outputs[specs[0].name])}}}'.encode()
    rows = (
        json.dumps({spec.name: value.tolist() for spec, value in zip(specs, values)})
        for values in zip(*(outputs[spec.name] for spec in specs))
    )
    return f'{{"predictions": [{", ".join(rows)}]}}'.encode()


def _list(array: np.ndarray) -> str:
    if not array.ndim:
        return json.dumps(array.tolist())
    return f"[{', '.join(json.dumps(each.tolist()) for each in array)}]"


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
