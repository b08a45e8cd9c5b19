"""Answers to a few samples in, whether those of all the others could change the verdict out.

A runtime beside the first has to show that it computes a file as the first one does, and int16x8 that its kernels are
right; both run plain kernels. MobileNetV2-224 on 100 samples, CPU seconds: tflite-runtime 5.9 for each float or int8
file and 11 for dynamic, LiteRT 22 for int16x8, where XNNPACK takes 0.6 to 2.1 for the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from edgeloop.convert.samples import Samples
from edgeloop.runtime.parity.answers import filled_like
from edgeloop.runtime.parity.compare import Floor, Parity

Arrays = Mapping[str, np.ndarray]

LEAST, VALUES = 16, 1 << 21  # samples, and values of them together: 682 images of 32 x 32 x 3, 16 of 224 x 224 x 3
SIGMAS = 4  # standard errors of the noise between what the few samples show and the floor


def few_of(samples: Samples) -> np.ndarray:
    """Which samples are asked first: evenly spaced over all of them."""
    each = sum(math.prod(array.shape[1:]) for array in samples.inputs.values())
    return samples.spaced(max(LEAST, VALUES // max(1, each)))


def settled(rows: Sequence[Parity], floor: Floor, expected: Arrays, got: Arrays, first: Arrays | None) -> bool:
    """Whether every output passes beyond doubt.

    `first` are the answers to the same samples of a runtime that passed on all samples; classes may differ from the
    source's as often as its classes do, and nowhere if there is none.
    """
    return all(
        row.passed
        and (floor.max_abs is None or row.max_abs <= floor.max_abs * max(1.0, _largest(expected[row.output])) / 2)
        and (row.top1_agreement in (None, 1.0) or (first is not None and _agrees_as_often(row, expected, first)))
        and _noise_bound(expected[row.output], got[row.output]) <= 10 ** (-floor.snr_db / 10)
        for row in rows
    )


def _agrees_as_often(row: Parity, expected: Arrays, first: Arrays) -> bool:
    same = expected[row.output].argmax(-1) == first[row.output].argmax(-1)
    return row.top1_agreement is not None and row.top1_agreement >= float(same.mean())


def _noise_bound(expected: np.ndarray, got: np.ndarray) -> float:
    """Noise in shares of the signal's power, and 4 standard errors of that ratio more."""
    axes = tuple(range(1, expected.ndim))
    arrays = expected, filled_like(np.asarray(got), expected)
    reference, value = (np.nan_to_num(array.astype(np.float64)) for array in arrays)
    power = np.square(reference).sum(axis=axes)
    noise = np.square(reference - value).sum(axis=axes)
    if not noise.any():
        return 0.0
    if not power.any():
        return math.inf
    ratio = noise.sum() / power.sum()
    count = len(power)
    error = np.sqrt(count / max(1, count - 1) * np.square(noise - ratio * power).sum()) / power.sum()
    return float(ratio + SIGMAS * error)


def _largest(reference: np.ndarray) -> float:
    return float(np.max(np.abs(np.nan_to_num(reference)), initial=0.0))
