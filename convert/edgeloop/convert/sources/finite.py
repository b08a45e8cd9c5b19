"""Weights that are no numbers: what a run that diverged leaves behind, and no conversion can be compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeloop.errors import ModelError

CHUNK = 1 << 22  # elements looked at at a time: a mask of a whole tensor would add a quarter of its size


def refuse_not_finite(path: Path, name: str, values: np.ndarray, *, constant: bool = False) -> None:
    """Infinity passes where it is a bound (a lone number), a mask (beside nothing but zeros) or, below zero, whole rows
    of a table, whose index then shuts something out of a softmax. NaN passes as a constant of shape [] alone, which is
    what a graph puts in place of other values.

    Args:
        values: With the tensor's shape, of a float dtype.
        constant: It may be a number that the graph was written with; False: training made it.

    Raises:
        ModelError: They hold NaN or infinity; names the tensor.
    """
    if constant and not values.ndim:
        return
    flat = values.reshape(-1)
    nans = infinite = other = 0
    for start in range(0, flat.size, CHUNK):
        part = flat[start : start + CHUNK]
        nans += int(np.count_nonzero(np.isnan(part)))
        infinite += int(np.count_nonzero(np.isinf(part)))
        other += int(np.count_nonzero(np.isfinite(part) & (part != 0)))
    if nans or (infinite and other and not _rows_shut_out(values)):
        what = f"{nans} NaN" if nans else f"{infinite} infinite numbers"
        raise ModelError(
            f"{path}: the weight {name!r} holds {what} among {flat.size} values",
            advice="Save the model at a step before training diverged, or fetch the file again.",
        )


def _rows_shut_out(values: np.ndarray) -> bool:
    """Whether all numbers of a row, along the last axis, are minus infinity wherever one of them is infinite."""
    if values.ndim < 2 or values.shape[-1] < 2:  # one number is no row
        return False
    rows = values.reshape(-1, values.shape[-1])
    at_once = max(1, CHUNK // rows.shape[1])
    for some in (rows[i : i + at_once] for i in range(0, len(rows), at_once)):
        shut_out = np.isneginf(some[:, :1])
        for part in (some[:, i : i + CHUNK] for i in range(0, rows.shape[1], CHUNK)):
            if np.isposinf(part).any() or (np.isneginf(part) != shut_out).any():
                return False
    return True
