"""Two outputs in, how far they differ out; and how far they may.

SNR in dB is 10 log10(sum ref^2 / sum (ref - out)^2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgeloop.bundle import Scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """What a scheme must reach. `max_abs` is relative to max(1, the largest reference); None: SNR alone decides."""

    snr_db: float
    max_abs: float | None = None
    top1: float = 0.0


# float32: reordered sums of unit-scale terms differ by some 1e-7 a step; 1e-5 leaves room for 100 of them, and 100 dB
#   is that same 1e-5 as a mean.
# float16: 11 bits of mantissa round each weight by at most 2^-12, -72 dB; measured 66 dB on the digits model and 53.9
#   on ResNet8, where errors add up over layers. 40 dB leaves that growth two more decades of power less than garbage.
# dynamic, int8: half a step of 1/127 is -53 dB for one uniform tensor; 20 layers in series and ranges set by extremes
#   cost 20 to 35 dB (ResNet8: dynamic 28.4, int8 20.0). Below 10 dB a tenth of the output's power is error, and
#   garbage (a lost scale, a wrong granularity) measured 0.6 and -2.9 dB.
FLOORS = {
    Scheme.FLOAT32: Floor(snr_db=100.0, max_abs=1e-5, top1=0.99),
    Scheme.FLOAT16: Floor(snr_db=40.0, top1=0.97),
    Scheme.DYNAMIC: Floor(snr_db=12.0, top1=0.85),
    Scheme.INT8: Floor(snr_db=10.0, top1=0.85),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """One output of one variant on one runtime against the source. `snr_db` None: exact. Accuracy in 0..1."""

    variant: str
    runtime: str
    output: str
    max_abs: float
    max_rel: float
    snr_db: float | None
    top1_agreement: float | None
    accuracy: float | None
    passed: bool


def compare(
    variant: str,
    runtime: str,
    scheme: Scheme,
    expected: Mapping[str, np.ndarray],
    got: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
) -> list[Parity]:
    """One record an output. An output that is missing, of another shape or not finite fails with infinite error
    written as the largest float, since JSON has no infinity."""
    classifier = is_classifier(expected, labels)
    rows = []
    for name, reference in expected.items():
        value = got.get(name)
        whole = value is not None and value.shape == reference.shape and bool(np.isfinite(value).all())
        value = np.asarray(value if whole else np.full(reference.shape, np.finfo(np.float32).max))
        rows.append(_row((variant, runtime, name), FLOORS[scheme], reference, value, labels, classifier, whole))
    return rows


def is_classifier(expected: Mapping[str, np.ndarray], labels: np.ndarray | None) -> bool:
    """One output [n, classes], and either labels or rows that are probabilities."""
    if len(expected) != 1:
        return False
    (output,) = expected.values()
    if output.ndim != 2 or output.shape[1] < 2:
        return False
    return labels is not None or bool((output >= 0).all() and np.allclose(output.sum(-1), 1, atol=1e-3))


def _row(
    names: tuple[str, str, str],
    floor: Floor,
    reference: np.ndarray,
    value: np.ndarray,
    labels: np.ndarray | None,
    classifier: bool,
    whole: bool,
) -> Parity:
    r, v = reference.astype(np.float64), value.astype(np.float64)
    error = np.abs(r - v)
    power = float(np.sum(np.square(r - v)))
    # a reference of zeros has no power of its own: its noise is then measured against one unit an element
    signal = float(np.sum(np.square(r))) or float(r.size)
    snr_db = None if power == 0 else 10 * float(np.log10(signal / power))
    largest = float(np.max(np.abs(r), initial=0.0))
    top1 = float(np.mean(r.argmax(-1) == v.argmax(-1))) if classifier else None
    passed = (
        whole
        and (snr_db is None or snr_db >= floor.snr_db)
        and (floor.max_abs is None or float(error.max(initial=0.0)) <= floor.max_abs * max(1.0, largest))
        and (top1 is None or top1 >= floor.top1)
    )
    return Parity(
        variant=names[0],
        runtime=names[1],
        output=names[2],
        max_abs=float(error.max(initial=0.0)),
        max_rel=float(error.max(initial=0.0)) / max(largest, 1e-12),
        snr_db=snr_db,
        top1_agreement=top1,
        accuracy=float(np.mean(v.argmax(-1) == labels)) if classifier and labels is not None else None,
        passed=passed,
    )
