"""A source and the samples for it in, one sentence out if the samples are scaled by 255 the wrong way.

Int8 calibrated on inputs scaled to 0..1 for a model that wants 0..255 fell from 74.5% to 10% on ResNet8, and no tool
said a word: float and int8 agree on what is equally wrong. Three witnesses are asked, each of which can be certain:
two sets that lie 255 times apart; labels, which the source meets only with the other scale; and what the model itself
remembers of its training data, a Rescaling or Normalization layer or the statistics of its first batch normalization.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.convert.calls import fixed_batch, in_batches
from edgeloop.convert.samples import Samples
from edgeloop.errors import DataError
from edgeloop.extras import need
from edgeloop.runtime.parity.compare import label_task
from edgeloop.runtime.parity.metrics import scores

Arrays = Mapping[str, np.ndarray]

LOOK = 256  # samples: 4 standard errors of an accuracy are then at most 12.5 points
FRONT = 16  # samples that go through the model's front: an order of magnitude is asked, and its tensors are large
RESCALE = "Scale the data like that, or build the scaling into the model with --input-range."
UNIT, BYTES = "0..1 or -1..1", "0..255"
TO_BYTES = {"x * 255": (255.0, 0.0), "(x + 1) * 127.5": (127.5, 127.5)}
TO_UNIT = {"x / 255": (1 / 255, 0.0), "x / 127.5 - 1": (1 / 127.5, -1.0)}


def range_mismatch(
    call: Callable[[Arrays], Arrays],
    inputs: Sequence[TensorSpec],
    calibration: Samples | None,
    samples: Samples,
    model: Any = None,
) -> DataError | None:
    """What is wrong with the scale of the samples; None where nothing shows.

    `call` is the source. `samples` prove, `calibration` measures ranges; made-up samples tell nothing. `model` is the
    Keras model, where it takes the samples as they are.
    """
    floats = [spec.name for spec in inputs if spec.dtype == "float32" and spec.shape]
    real = [s for s in (calibration, samples) if s is not None and s.real]
    for name in floats:
        kinds = [(range_of(s.inputs[name]), s) for s in real]
        if {kind for kind, _ in kinds} == {UNIT, BYTES}:
            low, high = (span(s.inputs[name]) for _, s in kinds)
            return DataError(
                f"the calibration data spans {low} in {name!r}, and the evaluation data spans {high}: one of them is "
                "scaled by 255",
                advice="Scale both as the model was trained.",
            )
    for name in floats if len(floats) == 1 else []:
        for given in [s for s in real[-1:] if not s.whole]:
            found = _by_labels(call, fixed_batch(inputs), name, given) or _by_memory(model, name, given)
            if found:
                spans = f"the data spans {span(given.inputs[name])} in {name!r}"
                return DataError(f"{spans}, but {found}", advice=RESCALE)
    return None


def scaled_twice(model: Any, input_range: tuple[float, float] | None) -> str | None:
    """Where --input-range scales what the Keras model's own first layer scales again, a sentence that says so."""
    if input_range is None or len(getattr(model, "inputs", None) or ()) != 1:
        return None
    layer = next((layer for layer in _walk(model) if _kind(layer) != "InputLayer"), None)
    if layer is None or _wanted(layer) != BYTES:
        return None
    low, high = input_range
    return (
        f"--input-range {low:g},{high:g} scales to 0..1, and the model begins with {_kind(layer)} {layer.name!r}, "
        f"which expects {BYTES}: the values are scaled twice. Leave --input-range out."
    )


def range_of(values: np.ndarray) -> str | None:
    """UNIT, BYTES, or None for anything that is neither beyond doubt."""
    few = _few(values)
    most = float(np.abs(few).max(initial=0.0))
    if 0 < most <= 1.05:
        return UNIT
    # 32: no picture set is so dark, and standardized features seldom reach so far
    return BYTES if 32 < most <= 256 and few.min() >= -1 else None


def span(values: np.ndarray) -> str:
    """`0..255`."""
    few = _few(values)
    return f"{float(few.min()):.4g}..{float(few.max()):.4g}"


def _by_labels(call: Callable[[Arrays], Arrays], batch: int | None, name: str, given: Samples) -> str | None:
    """The source is right far more often, by its labels, on rescaled inputs."""
    if given.labels is None or given.labels.ndim > 2:
        return None
    few, labels = _few(given.inputs[name]), _few(given.labels)
    before = _accuracy(call, batch, {name: few}, labels)
    commonest = max(np.unique(labels, return_counts=True, axis=0)[1]) / len(labels)
    if before is None or before - commonest > 4 * np.sqrt(before * (1 - before) / len(few)):
        return None  # it knows more than which label is the most frequent one, so it sees what it was trained on
    for how, (scale, shift) in _other(few).items():
        after = _accuracy(call, batch, {name: (few * scale + shift).astype(few.dtype)}, labels) or 0.0
        error = np.sqrt((before * (1 - before) + after * (1 - after)) / len(few))
        # twice as often right, or half as often wrong (of two classes, chance alone is right for half)
        if (after > 2 * before or 1 - after < (1 - before) / 2) and after - before > 4 * error:
            return f"the model is right for {before:.0%} of it, and for {after:.0%} after {how}"
    return None


def _by_memory(model: Any, name: str, given: Samples) -> str | None:
    """The model's first layer, or its first batch normalization, remembers data of the other scale."""
    few = _few(given.inputs[name])
    kind = range_of(few)
    if kind is None or len(getattr(model, "inputs", None) or ()) != 1:
        return None
    layer = next((layer for layer in _walk(model) if _kind(layer) != "InputLayer"), None)
    wanted = _wanted(layer) if layer is not None else None
    if layer is not None and wanted not in (None, kind):
        first = f"{_kind(layer)} {layer.name!r}"
        return f"the model begins with {first}, which expects {wanted}"
    for how, (scale, shift) in _other(few).items() if wanted is None else ():
        if _variance_fits(model, (few * scale + shift).astype(few.dtype), few):
            return f"the model's first batch normalization was trained on data like {how}"
    return None


def _wanted(layer: Any) -> str | None:
    """What a layer that scales its inputs expects of them."""
    if _kind(layer) == "Rescaling" and np.ndim(layer.scale) == 0:
        # 1/255 and 1/127.5 are the two in use
        return BYTES if abs(float(layer.scale)) < 1 / 64 else None
    if _kind(layer) == "Normalization" and getattr(layer, "mean", None) is not None:
        deviation = float(np.sqrt(np.max(layer.variance)))
        return BYTES if deviation > 16 else UNIT if deviation < 1 else None
    return None


def _variance_fits(model: Any, other: np.ndarray, given: np.ndarray) -> bool:
    """Whether the first batch normalization met inputs like `other` in training, and nothing like `given`.

    A factor of 255 is one of 65,025 in variance, 127.5 one of 16,256; two sets of real images differ by less than 10.
    """
    norm = next((layer for layer in _walk(model) if _kind(layer) == "BatchNormalization"), None)
    if norm is None or norm not in model.layers or model.inputs[0].shape[0] is not None:
        return False
    learned = np.asarray(norm.moving_variance, np.float64)
    if np.allclose(learned, 1):  # as it was made: never trained
        return False
    package = need(type(model).__module__.split(".")[0], extra="convert")
    front = package.Model(model.inputs[0], norm.input)
    axis = norm.axis if isinstance(norm.axis, int) else norm.axis[0]
    ratios = []
    for values in (given, other):
        found = np.moveaxis(np.asarray(front(values[:FRONT], training=False), np.float64), axis, -1)
        ratios.append(float(np.median(found.reshape(-1, found.shape[-1]).var(0) / np.maximum(learned, 1e-12))))
    before, after = ratios
    return 1 / 30 < after < 30 and not 1 / 1000 < before < 1000


def _accuracy(call: Callable[[Arrays], Arrays], batch: int | None, inputs: Arrays, labels: np.ndarray) -> float | None:
    """Of a classifier with one output; None for any other model."""
    outputs = in_batches(call, Samples(inputs=dict(inputs)), batch)
    task = label_task(outputs, labels)
    return None if task is None else scores(task, next(iter(outputs.values())), labels).accuracy


def _other(values: np.ndarray) -> dict[str, tuple[float, float]]:
    """Ways to scale values that are in one of the two ranges to the other."""
    kind = range_of(values)
    ways = {UNIT: TO_BYTES, BYTES: TO_UNIT}.get(kind or "", {})
    return {how: way for how, way in ways.items() if kind != UNIT or (values.min() < -0.05) == ("+ 1" in how)}


def _few(array: np.ndarray) -> np.ndarray:
    """Up to 256 samples from all over the set."""
    return np.asarray(array[:: max(1, len(array) // LOOK)][:LOOK])


def _walk(model: Any) -> list[Any]:
    """Layers in order, those of nested models among them."""
    found = []
    for layer in model.layers:
        found += _walk(layer) if getattr(layer, "layers", None) else [layer]
    return found


def _kind(layer: Any) -> str:
    return type(layer).__name__
