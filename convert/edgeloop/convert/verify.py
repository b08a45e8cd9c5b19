"""A bundle in, everything about it checked again on this machine: hashes, then the parity of every variant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeloop.answer import Progress, silent
from edgeloop.bundle import PROOF, REFERENCE, Bundle, read_bundle
from edgeloop.canonical import read_json
from edgeloop.convert.parity import Parity
from edgeloop.convert.prove import check, prove
from edgeloop.convert.samples import Samples
from edgeloop.edge.reference import read_reference
from edgeloop.errors import DataError, IntegrityError


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    bundle: Bundle
    parity: tuple[Parity, ...]


def verify(path: str | Path, progress: Progress = silent) -> Verified:
    """Check a bundle with what is in it: no source model, no TensorFlow.

    Raises:
        ModelError: No bundle, or one that breaks its format.
        IntegrityError: A file or the proof does not belong to the manifest.
        DataError: The bundle was written without reference.npz, so there is nothing to compare with.
        ParityError: A variant no longer computes what the source did.
    """
    bundle = read_bundle(path)
    proof = bundle.file(PROOF)
    if proof.is_file():
        stated = read_json(proof.read_bytes(), PROOF).get("manifest_sha256")
        if stated != bundle.manifest_sha256:
            raise IntegrityError(f"{proof} is about another manifest ({str(stated)[:12]}…). Convert the model again.")
    samples, expected = _reference(bundle)
    rows = prove(bundle.path, bundle.variants, bundle.manifest.signatures, samples, expected, progress)
    check(rows, "Do not use the bundle on a device like this; convert the model again.")
    return Verified(bundle=bundle, parity=tuple(rows))


def _reference(bundle: Bundle) -> tuple[Samples, Mapping[str, np.ndarray]]:
    found = read_reference(bundle)
    if found is None:
        raise DataError(
            f"{bundle.path} has no {REFERENCE}, so its variants cannot be checked. Convert without --no-reference."
        )
    inputs, outputs = found
    ends = [({t.name for t in s.inputs}, {t.name for t in s.outputs}) for s in bundle.manifest.signatures.values()]
    if (set(inputs), set(outputs)) not in ends:
        named = f"inputs {sorted(inputs)} and outputs {sorted(outputs)}"
        raise DataError(f"{bundle.file(REFERENCE)} has {named}, those of no signature. Convert the model again.")
    return Samples(inputs=inputs), outputs
