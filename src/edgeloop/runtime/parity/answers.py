"""The answers of single calls in, one array for each output out. Here, so that a device joins them as the host did.

A model may have no batch axis: its inputs begin with different sizes, or an output's size depends on the values. Then
one sample is all that one call takes, and an array of samples has one axis more than the tensor it is for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgeloop.bundle import TensorSpec

Arrays = Mapping[str, np.ndarray]


def stacked(calls: Sequence[Arrays]) -> dict[str, np.ndarray]:
    """Every output of all calls, each [calls, *its shape].

    An output whose size differs from call to call is filled up with NaN behind its values to the largest size, in
    float64 where it holds integers: no answer of a model that may be compared holds NaN itself.
    """
    return {name: _stacked([np.asarray(call[name]) for call in calls]) for name in calls[0]}


def _stacked(values: Sequence[np.ndarray]) -> np.ndarray:
    if len({value.shape for value in values}) == 1:
        return np.stack(values)
    rank = max(value.ndim for value in values)
    shaped = [value.reshape(*value.shape, *[1] * (rank - value.ndim)) for value in values]
    largest = tuple(map(max, zip(*(value.shape for value in shaped))))
    return np.stack([_filled(value, largest) for value in shaped])


def filled_like(value: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """`value` filled up to the size of a `reference` that is filled up itself: to that of the largest of all answers,
    which may not be among the samples that are compared. Unchanged where it does not fit in."""
    if value.shape == reference.shape or value.shape[:1] != reference.shape[:1] or value.ndim != reference.ndim:
        return value
    filled = reference.dtype.kind == "f" and bool(np.isnan(reference).any())
    return _filled(value, reference.shape) if filled and np.all(value.shape <= np.array(reference.shape)) else value


def _filled(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    made = np.full(shape, np.nan, value.dtype if value.dtype.kind == "f" else np.dtype(np.float64))
    made[tuple(map(slice, value.shape))] = value
    return made


def is_whole(specs: Sequence[TensorSpec], arrays: Arrays) -> bool:
    """Whether each sample in `arrays` is all that one call takes: they have one axis more than the tensors."""
    return any(arrays[spec.name].ndim == len(spec.shape) + 1 for spec in specs if spec.name in arrays)
