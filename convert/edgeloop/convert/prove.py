"""Variants and the source's answers in, parity of each in its own runtime out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgeloop.answer import Progress, silent
from edgeloop.bundle import Format, Signature, Variant
from edgeloop.convert.batches import in_batches
from edgeloop.convert.parity import Parity, compare
from edgeloop.convert.samples import Samples
from edgeloop.edge.runners import Session, runners
from edgeloop.errors import MissingExtra, ModelError, ParityError

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

    `expected` {output: [n, ...]} are the source's answers, by the signature that takes these inputs. A variant of a
    format without a runtime is skipped.

    Raises:
        MissingExtra: A format's first runtime is not installed.
        TargetError: A runtime refuses a variant.
        DeviceError: A runtime died or hung.
    """
    rows: list[Parity] = []
    available = runners()
    for done, variant in enumerate(variants):
        for position, name in enumerate(RUNTIMES.get(variant.format, ())):
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


def check(rows: Sequence[Parity], advice: str) -> None:
    """Raise for the worst output that failed, with what to do about it.

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
        f"{len(failed)} of {len(rows)} checks failed. {advice}"
    )


def run(
    session: Session, variant: Variant, signatures: Mapping[str, Signature], inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """All samples through the inference signature of one variant.

    Raises:
        ModelError: No signature of the variant takes these inputs.
    """
    names = [s for s in variant.signatures if s != TRAIN and set(inputs) == {t.name for t in signatures[s].inputs}]
    if not names:
        raise ModelError(f"variant {variant.id!r} has no signature with the inputs {sorted(inputs)}. Convert it again.")
    # a variant with a training signature runs every signature at that batch (docs/trainable.md)
    batched = signatures[TRAIN if TRAIN in variant.signatures else names[0]].inputs  # sorted: `lr` may come first
    fixed = next(t for t in batched if t.name in inputs).shape[0]
    key = names[0] if variant.format is Format.TFLITE else None
    return in_batches(lambda batch: session.infer(batch, key), inputs, fixed)
