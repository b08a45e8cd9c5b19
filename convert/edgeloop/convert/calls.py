"""Samples and a model in, its calls out: what its first axis means, and the answers of all calls, joined.

A model has a batch axis where the first axis of every tensor counts samples. Where it has none (a state [layers, batch,
units] beside x [batch, features], a sequence [time, features], an output whose size depends on the values), one sample
is all that one call takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.convert.samples import Samples, synthetic
from edgeloop.convert.sources.source_value import Source
from edgeloop.errors import ModelError
from edgeloop.runtime.parity.answers import stacked

Arrays = Mapping[str, np.ndarray]
Outputs = dict[str, np.ndarray]

ALONE = "Export the model so that it answers each sample of a batch by itself."
FREE_BATCH = 3  # samples of a free batch that are asked together


class NotBatchedError(ModelError):
    """The first axis of an answer does not count the samples of the call."""


def first_axes_agree(inputs: Sequence[TensorSpec]) -> bool:
    """Whether the first axis is free in all inputs, or of one fixed size in all of them."""
    return len({spec.shape[:1] for spec in inputs}) == 1 and bool(inputs[0].shape)


def fixed_batch(inputs: Sequence[TensorSpec]) -> int | None:
    """The model's own batch; None where it is free, or where there is none."""
    return inputs[0].shape[0] if first_axes_agree(inputs) else None


def has_batch_axis(source: Source) -> bool:
    """By the shapes of the inputs and, but for Keras, whose models have one, by what the source answers: a sample's
    answer may not depend on the others in its call."""
    if not first_axes_agree(source.inputs):
        return False
    if source.model is not None:
        return all(spec.shape[:1] == source.inputs[0].shape[:1] for spec in source.outputs)
    size = fixed_batch(source.inputs) or FREE_BATCH
    middle = size // 2
    made = synthetic(source.inputs, sizes=source.sizes, count=2 * size).inputs
    first = {name: array[:size] for name, array in made.items()}
    other = {name: array[size:].copy() for name, array in made.items()}
    for name, array in first.items():
        other[name][middle] = array[middle]
    try:
        answers = source.call(first), source.call(other) if size > 1 else {}
    except ModelError:  # of values made up; whether it runs at all is for the real ones to show
        return True
    if any(np.shape(value)[:1] != (size,) for answer in answers for value in answer.values()):
        return False
    return all(_same(value[middle], answers[0][name][middle]) for name, value in answers[1].items())


def in_batches(
    call: Callable[[Arrays], Arrays], samples: Samples, fixed: int | None, size: int | None = None
) -> Outputs:
    """Every output of `call` for all samples, each [n, ...]: `size` at a time, or exactly the model's own `fixed`.

    Without a size, up to 64 samples of half a million values together: 3 images of 224 x 224, or 3 times 9 seconds
    of sound, of which each took tflite-runtime 0.7 GB in a net that judges speech.

    Raises:
        NotBatchedError: `samples` come in batches, and an answer does not.
    """
    if samples.whole:
        return stacked([call(one) for one in samples.batches(1)])
    parts: list[Outputs] = []
    for batch in samples.batches(fixed or size or batch_size(samples), fill=fixed is not None):
        part = {name: np.asarray(value) for name, value in call(batch).items()}
        _check_batched(part, len(next(iter(batch.values()))), parts[0] if parts else part)
        parts.append(part)
    return {name: np.concatenate([part[name] for part in parts])[: len(samples)] for name in parts[0]}


def batch_size(samples: Samples) -> int:
    """Up to 64 samples, of half a million values together."""
    values = sum(int(np.prod(array.shape[1:])) for array in samples.inputs.values())
    return max(1, min(64, 500_000 // max(1, values)))


def _check_batched(part: Arrays, count: int, first: Arrays) -> None:
    for name, value in part.items():
        found = f"the output {name!r} has shape {list(value.shape)} for {count} sample" + "s" * (count != 1)
        if value.shape[:1] != (count,):
            raise NotBatchedError(f"{found}, expected {count} as its first size", advice=ALONE)
        if value.shape[1:] != first[name].shape[1:]:
            raise NotBatchedError(f"{found}, and shape {list(first[name].shape)} for other samples", advice=ALONE)


def _same(value: np.ndarray, other: np.ndarray) -> bool:
    """Within 0.1% of the largest: kernels for batches of other sizes, or of other values, round differently."""
    if value.shape != other.shape:
        return False
    a, b = np.asarray(value, np.float64), np.asarray(other, np.float64)
    largest = float(np.max(np.abs(a), initial=0.0, where=np.isfinite(a)))
    return bool(np.allclose(a, b, rtol=0, atol=1e-3 * largest, equal_nan=True))
