"""A variant and samples in, the real numbers that its inference signature answers out, in an open session."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from edgeloop.bundle import TRAIN, Format, Signature, Variant
from edgeloop.convert.calls import fixed_batch, in_batches
from edgeloop.convert.samples import Samples
from edgeloop.errors import ModelError
from edgeloop.runtime.parity.quantization import from_io, to_io
from edgeloop.runtime.runners import Session


def run_variant(
    session: Session, variant: Variant, signatures: Mapping[str, Signature], samples: Samples
) -> dict[str, np.ndarray]:
    """All samples through the inference signature of one variant; real numbers in, real numbers out.

    Raises:
        ModelError: No signature of the variant takes these inputs, or its answers come in no batches.
    """
    name = inference_signature(variant, signatures, samples.inputs)
    # a variant with a training signature runs every signature at that batch (docs/trainable.md)
    batched = signatures[TRAIN if TRAIN in variant.signatures else name].inputs  # sorted: `lr` may come first
    own = [replace(t, shape=variant.shapes.get(t.name, t.shape)) for t in batched if t.name in samples.inputs]
    fixed = fixed_batch(own)
    ends = signatures[name]
    # where the source itself takes or gives integers, those are the numbers to compare
    real = {t.name for t in (*ends.inputs, *ends.outputs) if t.dtype.startswith("float")}
    io = {tensor: stored for tensor, stored in variant.io.items() if tensor in real}
    key = name if variant.format is Format.TFLITE else None

    def call(batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return from_io(session.infer(to_io(batch, io), key), io)

    return in_batches(call, samples, fixed)


def inference_signature(variant: Variant, signatures: Mapping[str, Signature], inputs: Collection[str]) -> str:
    """The signature of the variant that takes these inputs.

    Raises:
        ModelError: It has none.
    """
    for name in variant.signatures:
        if name != TRAIN and set(inputs) == {t.name for t in signatures[name].inputs}:
            return name
    raise ModelError(
        f"variant {variant.id!r} has no signature with the inputs {sorted(inputs)}", advice="Convert it again."
    )
