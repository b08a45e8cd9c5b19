"""Variants and the source's answers in, parity of each in its own runtime out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgeloop.answer import Progress, silent
from edgeloop.bundle import Format, Signature, Variant
from edgeloop.convert.parity import Parity, compare
from edgeloop.convert.samples import Samples
from edgeloop.edge.runners import Session, runners
from edgeloop.errors import MissingExtra, ParityError

# The first runtime of a format must be there; the others prove where they are installed.
RUNTIMES: dict[Format, tuple[str, ...]] = {
    Format.TFLITE: ("litert", "tflite-runtime"),
    Format.ONNX: ("onnxruntime",),
    Format.TFJS: ("tfjs",),
}
TRAIN = "train"


def prove(
    folder: Path,
    variants: Sequence[Variant],
    signatures: Mapping[str, Signature],
    samples: Samples,
    expected: Mapping[str, np.ndarray],
    progress: Progress = silent,
) -> list[Parity]:
    """Run every variant on `samples` in every runtime of its format, each in a process of its own.

    `expected` {output: [n, ...]} are the source's answers. The inference signature is the one that has these outputs.

    Raises:
        MissingExtra: A format's first runtime is not installed.
        TargetError: A runtime refuses a variant.
        DeviceError: A runtime died or hung.
    """
    rows: list[Parity] = []
    available = runners()
    for done, variant in enumerate(variants):
        for position, name in enumerate(RUNTIMES[variant.format]):
            try:
                with available[name].open(folder, variant.entry) as session:
                    got = run(session, variant, signatures, samples.inputs)
            except MissingExtra:
                if position == 0:
                    raise
                continue
            rows += compare(variant.id, name, variant.scheme, expected, got, samples.labels)
        progress("prove", done + 1, len(variants))
    return rows


def check(rows: Sequence[Parity]) -> None:
    """Raise for the worst output that failed.

    Raises:
        ParityError: Naming variant, runtime, output and how far it is off.
    """
    failed = [row for row in rows if not row.passed]
    if not failed:
        return
    worst = min(failed, key=lambda row: np.inf if row.snr_db is None else row.snr_db)
    agree = "" if worst.top1_agreement is None else f", top-1 agreement {worst.top1_agreement:.1%}"
    raise ParityError(
        f"{worst.variant} on {worst.runtime} does not compute what the source does: output {worst.output!r} has "
        f"SNR {worst.snr_db or 0:.1f} dB, max abs error {worst.max_abs:.3g}{agree}. "
        f"{len(failed)} of {len(rows)} checks failed. Nothing was written; leave that scheme out, or change the model."
    )


def run(
    session: Session, variant: Variant, signatures: Mapping[str, Signature], inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """All samples through one variant: whole batches where the batch is free, else batches of the variant's size,
    the last one filled up with the first samples."""
    name = next(s for s in variant.signatures if s != TRAIN and set(inputs) == {t.name for t in signatures[s].inputs})
    # a variant with a training signature runs every signature at that batch (docs/trainable.md)
    fixed = signatures[TRAIN if TRAIN in variant.signatures else name].inputs[0].shape[0]
    count = len(next(iter(inputs.values())))
    size = fixed or min(count, 64)
    parts = []
    for start in range(0, count, size):
        index = np.arange(start, start + size) % count if fixed else np.arange(start, min(start + size, count))
        parts.append(session.infer({n: a[index] for n, a in inputs.items()}, _key(variant, name)))
    return {n: np.concatenate([np.asarray(p[n]) for p in parts])[:count] for n in parts[0]}


def _key(variant: Variant, signature: str) -> str | None:
    return signature if variant.format is Format.TFLITE else None
