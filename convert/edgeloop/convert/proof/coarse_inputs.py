"""Samples and proved rows in, one sentence out where int8 is poor because its inputs are: few values span the range.

An int8 input has 255 steps from the smallest value to the largest. Raw tabular features put most values into a few of
them: a column up to 40,000 beside columns up to 10, or one outlier among thousands.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeloop.bundle import Format, Scheme, Variant
from edgeloop.convert.samples import Samples
from edgeloop.runtime.parity.compare import Parity

POOR_DB = 25.0  # above the floor of int8; nets with even inputs measured 30 to 50
SHARE, OF_RANGE = 0.9, 1 / 16  # nine values of ten within 16 of the 255 steps
FEW = 4096


def coarse_inputs(rows: Sequence[Parity], variants: Sequence[Variant], samples: Samples) -> str | None:
    """What to do about it; None where int8 is good, absent, or poor for another reason."""
    int8 = {v.id for v in variants if v.scheme is Scheme.INT8 and v.format is Format.TFLITE}
    found = [row.snr_db for row in rows if row.variant in int8 and row.passed and row.snr_db is not None]
    if not found or max(found) >= POOR_DB or not samples.real:
        return None
    for name, array in samples.inputs.items():
        few = np.asarray(array[:FEW])
        if few.dtype.kind != "f" or not few.size:
            continue
        low, high = np.quantile(few, [(1 - SHARE) / 2, (1 + SHARE) / 2])
        if high - low < OF_RANGE * float(few.max() - few.min()):
            return (
                f"int8 has an SNR of {max(found):.1f} dB because {SHARE:.0%} of the values of {name!r} lie between "
                f"{low:.4g} and {high:.4g}, while its steps span {few.min():.4g} to {few.max():.4g}. Scale the "
                "features to similar ranges before the model, or use dynamic."
            )
    return None
