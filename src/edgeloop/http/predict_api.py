"""JSON values in, a model's inputs out; its outputs in, JSON values out. Python 3.9 syntax.

A value is a nested list, or {"npy": base64 of a .npy file}. With the batch axis of the manifest's shape it is a batch,
without it one sample; what comes in as a batch goes out as one.

Source: https://www.tensorflow.org/tfx/serving/api_rest (instances, inputs, predictions, outputs)
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.errors import DataError, TargetError

Arrays = Mapping[str, np.ndarray]
TOP = 5


def parse(data: bytes) -> Any:
    """JSON of a question. Raises DataError."""
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as e:
        raise DataError(f"the question is no JSON ({_line(e)}). Expected a nested list, or an object of them.") from e


def sample(specs: Sequence[TensorSpec], document: Any) -> tuple[dict[str, np.ndarray], bool]:
    """`{input: value}`, or a bare value where there is one input; a batch axis is added where a sample has none.

    Returns:
        The inputs, and whether they came as a batch.

    Raises:
        DataError: Another name, shape or type than the signature's, or not numbers.
    """
    pairs = [_with_batch(spec, array) for spec, array in named(specs, document)]
    batched = {was for _, was in pairs}
    if len(batched) > 1:
        raise DataError("some inputs have a batch axis and some have none. Give it to all or to none of them.")
    inputs = {spec.name: array for spec, (array, _) in zip(specs, pairs)}
    return _one_size(inputs), batched.pop()


def rows(specs: Sequence[TensorSpec], instances: Any) -> dict[str, np.ndarray]:
    """TF Serving's `instances`: a list of samples. Raises as `sample`."""
    if not isinstance(instances, list) or not instances:
        raise DataError("instances is empty or no list. Expected one value, or {input: value}, a sample.")
    arrays = [{spec.name: array for spec, array in named(specs, one)} for one in instances]
    try:
        stacked = {spec.name: np.stack([one[spec.name] for one in arrays]) for spec in specs}
    except ValueError as e:
        raise DataError(f"the instances differ in shape ({e}). Send those of one shape together.") from e
    for spec in specs:
        _fits(spec, stacked[spec.name])
    return stacked


def columns(specs: Sequence[TensorSpec], document: Any) -> dict[str, np.ndarray]:
    """TF Serving's `inputs`: whole tensors, batch axis included. Raises as `sample`."""
    inputs = {spec.name: array for spec, array in named(specs, document)}
    for spec in specs:
        _fits(spec, inputs[spec.name])
    return _one_size(inputs)


def named(specs: Sequence[TensorSpec], document: Any) -> list[tuple[TensorSpec, np.ndarray]]:
    """Every input with its array, in the order of `specs`. Raises as `sample`."""
    if len(specs) == 1 and not (isinstance(document, Mapping) and "npy" not in document):
        return [(specs[0], tensor(specs[0], document))]
    if not isinstance(document, Mapping):
        raise DataError(f"found a {type(document).__name__}. Expected an object with {_names(specs)}.")
    if set(document) != {spec.name for spec in specs}:
        raise DataError(f"found the inputs {sorted(map(str, document))}. Expected {_names(specs)}.")
    return [(spec, tensor(spec, document[spec.name])) for spec in specs]


def tensor(spec: TensorSpec, value: Any) -> np.ndarray:
    """One value as an array of the signature's dtype; numbers that it cannot hold are refused. Raises as `sample`."""
    try:
        array = value if isinstance(value, np.ndarray) else _array(value)
        wanted = np.dtype(spec.dtype)
    except (ValueError, TypeError, OverflowError, EOFError, MemoryError) as e:
        raise DataError(f"input {spec.name!r} is no array of {spec.dtype} ({_line(e)}). Send nested lists.") from e
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise DataError(f"input {spec.name!r} holds something other than finite numbers. Expected {spec.dtype}.")
    if wanted.kind in "iu":
        limits = np.iinfo(wanted)
        if (array != np.rint(array)).any() or (array < limits.min).any() or (array > limits.max).any():
            raise DataError(
                f"input {spec.name!r} holds numbers that are no {spec.dtype}. Send whole ones in its range."
            )
    return array.astype(wanted)


def answer(specs: Sequence[TensorSpec], outputs: Arrays, batched: bool) -> dict[str, Any]:
    """What one input's line says: of a classifier {label, class, score, top}, else {outputs: {name: nested list}}.

    A classifier has one output whose labels the manifest names, and was asked one sample.

    Raises:
        TargetError: The model answered NaN or infinity.
    """
    finite(outputs)
    if batched:
        return {"outputs": {name: array.tolist() for name, array in outputs.items()}}
    # an output without a batch axis, as of some detectors, stays as it is
    first = {name: array[0] if array.ndim and len(array) == 1 else array for name, array in outputs.items()}
    if len(specs) == 1 and specs[0].labels:
        scores, labels = first[specs[0].name], specs[0].labels
        if scores.shape == (len(labels),):
            return _classes(scores, labels)
    return {"outputs": {name: array.tolist() for name, array in first.items()}}


def predictions(specs: Sequence[TensorSpec], outputs: Arrays, by_row: bool) -> dict[str, Any]:
    """TF Serving's answer: `predictions`, one a sample, to `instances`; `outputs`, whole tensors, to `inputs`.

    One output goes without its name. Raises as `answer`.
    """
    finite(outputs)
    lists = {spec.name: outputs[spec.name].tolist() for spec in specs}
    if not by_row:
        return {"outputs": lists if len(lists) > 1 else next(iter(lists.values()))}
    if len(lists) == 1:
        return {"predictions": next(iter(lists.values()))}
    return {"predictions": [dict(zip(lists, values)) for values in zip(*lists.values())]}


def finite(outputs: Arrays) -> None:
    """JSON has no NaN, and it is no result either."""
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise TargetError(f"output {name!r} holds NaN or infinity. Is the input in the range the model knows?")


def _classes(scores: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    order = np.argsort(-scores.astype(np.float64), kind="stable")[:TOP]
    top = [{"label": labels[i], "class": int(i), "score": float(scores[i])} for i in order]
    return {**top[0], "top": top}


def _array(value: Any) -> np.ndarray:
    if not isinstance(value, Mapping):
        return np.asarray(value)
    if set(value) != {"npy"}:
        raise ValueError(f"an object of {sorted(map(str, value))}")
    data = io.BytesIO(base64.b64decode(value["npy"], validate=True))
    try:
        return np.lib.format.read_array(data, allow_pickle=False)  # not np.load: it takes other kinds of files as well
    except Exception as e:  # a damaged header is read as Python, and gave TokenError, SyntaxError, TypeError and others
        raise ValueError(f"a damaged .npy, {type(e).__name__}: {e}") from e


def _with_batch(spec: TensorSpec, array: np.ndarray) -> tuple[np.ndarray, bool]:
    batched = array.ndim == len(spec.shape)
    array = array if batched else array[np.newaxis]
    _fits(spec, array)
    return array, batched


def _fits(spec: TensorSpec, array: np.ndarray) -> None:
    """A first axis that is free or 1 is the batch, of any size: follow.py cuts it to what the variant takes."""
    expected = tuple(None if axis == 0 and want == 1 else want for axis, want in enumerate(spec.shape))
    fitting = array.ndim == len(expected) and all(want in (None, have) for want, have in zip(expected, array.shape))
    if not fitting or not array.size:
        shape = "[" + ", ".join("any" if d is None else str(d) for d in expected) + "]"
        raise DataError(f"input {spec.name!r} has shape {list(array.shape)}. Expected {shape}, batch first.")


def _one_size(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    sizes = {name: len(array) for name, array in inputs.items() if array.ndim}
    if len(set(sizes.values())) > 1:
        raise DataError(f"the inputs have batches of {sizes}. Send as many samples of each.")
    return inputs


def _names(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(repr(spec.name) for spec in specs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
