"""How far answers are from what was expected."""

import numpy as np


def snr_db(expected: np.ndarray, got: np.ndarray) -> float:
    """Signal to noise in decibels; infinite where they are equal."""
    expected, got = np.asarray(expected, np.float64), np.asarray(got, np.float64)
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(np.sum(expected**2) / np.sum((expected - got) ** 2)))
