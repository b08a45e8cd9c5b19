"""A proof's records in; the same records out, failed where a runtime computes a model wrong whatever its scheme.

Noise of quantization hides an error of the runtime itself: LiteRT 2.3 computes one grouped convolution with
GroupNormalization at 20 dB. float32 fails its floor there, but dynamic, whose own noise is near that, would pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgeloop.bundle import Format, Scheme, Variant
from edgeloop.runtime.parity.compare import Parity

GAP_DB = 20.0  # kernels of two runtimes round differently: measured up to 6 dB between LiteRT and tflite-runtime
CLEAN_DB = 60.0  # a runtime that is this good needs no comparison: what lies above it is the luck of exact sums


def distrust(rows: Sequence[Parity], variants: Sequence[Variant]) -> list[Parity]:
    """Fail a quantized .tflite on a runtime where float32 disagrees, or where another runtime is 20 dB better."""
    kinds = {v.id: v for v in variants if v.format is Format.TFLITE}
    floats = [row for row in rows if row.variant in kinds and kinds[row.variant].scheme is Scheme.FLOAT32]
    # a crash or a refusal of the float file says nothing of the others
    wrong = {(r.runtime, r.device, r.output): r for r in floats if not r.passed and r.error is None}
    made = []
    for row in rows:
        variant = kinds.get(row.variant)
        if variant is not None and variant.scheme is not Scheme.FLOAT32 and row.passed:
            float32 = wrong.get((row.runtime, row.device, row.output))
            best = max(_snr(r) for r in rows if (r.variant, r.output) == (row.variant, row.output) and r.error is None)
            if float32 is not None:
                row = _failed(row, f"float32 itself has SNR {_snr(float32):.1f} dB on this runtime")
            elif min(best, CLEAN_DB) - _snr(row) >= GAP_DB:
                row = _failed(row, f"SNR {_snr(row):.1f} dB on this runtime, {best:.1f} dB on another")
        made.append(row)
    return made


def far_apart(rows: Sequence[Parity], others: Sequence[Parity]) -> bool:
    """Whether `distrust` would fail one of these records of a variant for what the other ones say."""
    return any(
        row.output == other.output
        and other.error is None
        and abs(min(_snr(row), CLEAN_DB) - min(_snr(other), CLEAN_DB)) >= GAP_DB
        for row in rows
        for other in others
    )


def _failed(row: Parity, error: str) -> Parity:
    return replace(row, passed=False, error=f"output {row.output!r}: {error}")


def _snr(row: Parity) -> float:
    return CLEAN_DB if row.snr_db is None else row.snr_db
