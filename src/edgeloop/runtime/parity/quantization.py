"""Real numbers to what a tensor stores, and back: a variant with integer ends is asked and answers in its own numbers.

    real = (stored - zero_point) * scale

Source: https://ai.google.dev/edge/litert/models/quantization_spec

Rounded half to even: so do LiteRT 2.3's QUANTIZE kernels with and without XNNPACK, measured on 500 halves; its
reference kernel rounds them away from zero.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeloop.bundle import Quantization


def to_stored(values: np.ndarray, dtype: str, scale: float, zero_point: int) -> np.ndarray:
    """Floats to `dtype`, rounded and clamped as the QUANTIZE operator does; anything else, and scale 0, unchanged."""
    if not scale or values.dtype.kind != "f":
        return values
    # in float32, as the kernel divides: a wider quotient falls on the other side of a half now and then
    steps = values.astype(np.float32) / np.float32(scale)
    whole = np.rint(steps).astype(np.float64) + zero_point
    limits = np.iinfo(dtype)
    return np.clip(whole, limits.min, limits.max).astype(dtype)


def to_real(stored: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """Stored integers to float32; floats, and integers that have no scale, unchanged."""
    if not scale or stored.dtype.kind not in "iu":
        return stored
    return ((stored.astype(np.float64) - zero_point) * scale).astype(np.float32)


def to_io(inputs: Mapping[str, np.ndarray], io: Mapping[str, Quantization]) -> dict[str, np.ndarray]:
    """Real inputs as the variant with these ends takes them. A name that `io` does not have stays as it is."""
    return {n: to_stored(a, io[n].dtype, io[n].scale, io[n].zero_point) if n in io else a for n, a in inputs.items()}


def from_io(outputs: Mapping[str, np.ndarray], io: Mapping[str, Quantization]) -> dict[str, np.ndarray]:
    """A variant's own outputs as real numbers."""
    return {n: to_real(a, io[n].scale, io[n].zero_point) if n in io else a for n, a in outputs.items()}
