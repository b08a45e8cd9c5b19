"""A bundle in, everything about it checked again on this machine: hashes, then the parity of every variant."""

from __future__ import annotations

import io
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
    samples, expected = reference(bundle)
    manifest = bundle.manifest
    rows = prove(bundle.path, manifest.variants, manifest.signatures, samples, expected, progress)
    check(rows)
    return Verified(bundle=bundle, parity=tuple(rows))


def reference(bundle: Bundle) -> tuple[Samples, Mapping[str, np.ndarray]]:
    """The real inputs a bundle carries, and the source's answers to them.

    Raises:
        DataError: It carries none, or not plain arrays.
    """
    file = bundle.file(REFERENCE)
    if not file.is_file():
        raise DataError(
            f"{bundle.path} has no {REFERENCE}, so its variants cannot be checked. Convert without --no-reference."
        )
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
            sides = {
                side: {n[len(side) :]: arrays[n] for n in arrays.files if n.startswith(side)}
                for side in ("in/", "out/")
            }
    except (OSError, ValueError, EOFError) as e:
        raise DataError(f"{file} is no .npz file of plain arrays ({e}). Convert the model again.") from e
    if not sides["in/"] or not sides["out/"]:
        raise DataError(f"{file} has no inputs or no outputs. Convert the model again.")
    return Samples(inputs=sides["in/"]), sides["out/"]
