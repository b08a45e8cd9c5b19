"""A bundle in, everything about it checked again on this machine: hashes, then the parity of every variant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeloop.bundle import PROOF, REFERENCE, Bundle, read_bundle
from edgeloop.convert.proof.parity import Parity, check_listed_parity
from edgeloop.convert.proof.prove import ProveOptions, prove
from edgeloop.convert.proof.worst_layer import layer_names
from edgeloop.convert.samples import Samples
from edgeloop.errors import DataError
from edgeloop.progress import Progress, silent
from edgeloop.runtime.device import Device
from edgeloop.runtime.parity.proof import read_proof
from edgeloop.runtime.parity.reference import has_whole_calls, read_reference


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyResult:
    """A bundle that holds, and one record for each variant, runtime, device and output: also of those not listed."""

    bundle: Bundle
    parity: tuple[Parity, ...]


def verify(path: str | Path, progress: Progress = silent, on: tuple[Device, ...] = ()) -> VerifyResult:
    """Check every hash of a bundle, and run every variant against the source model's answers that lie in it.

    Neither the source model nor TensorFlow is needed. A runtime that the manifest says a variant was proved on must
    agree here too; what other runtimes do is in the records.

    Args:
        path: The bundle folder.
        on: Devices to run the variants on beside this machine.

    Returns:
        The bundle, and one record for each variant, runtime, device and output: `max_abs` and `max_rel` without a
        unit, `snr_db` in decibels (None: exact), shares between 0 and 1.

    Raises:
        ModelError: No bundle, or one that breaks its format.
        IntegrityError: A file or the proof does not belong to the manifest.
        DataError: The bundle was written without reference.npz, so there is nothing to compare with.
        ParityError: A variant no longer computes what the source did.
        MissingExtra: No runtime is installed for the format of a variant that was proved.

    Example:
        >>> checked = verify("m/", on=(parse_device("ssh://pi@camera.local"),))
        >>> [(row.variant, row.runtime, row.device, row.snr_db) for row in checked.parity]
    """
    bundle = read_bundle(path)
    if bundle.file(PROOF).is_file() or len(bundle.variants) == len(bundle.manifest.variants):
        read_proof(bundle)  # the part of a bundle that a device holds has none
    samples, expected = _reference(bundle)
    listed = {variant.id: variant.requires.runtimes for variant in bundle.variants}
    # what was written unproved has nothing to repeat where its runtime is still missing
    unproved = {v.format for v in bundle.variants} - {v.format for v in bundle.variants if listed[v.id]}
    options = ProveOptions(on=on, unproved=frozenset(unproved))
    layers = layer_names(bundle.manifest.weights)
    rows = prove(
        bundle.path,
        bundle.variants,
        bundle.manifest.signatures,
        samples,
        expected,
        options,
        progress,
        layers=layers,
        source=bundle.manifest.source,
    )
    check_listed_parity(rows, listed, "Do not use the bundle on a device like this one. Convert the model again.")
    return VerifyResult(bundle=bundle, parity=tuple(rows))


def _reference(bundle: Bundle) -> tuple[Samples, Mapping[str, np.ndarray]]:
    found = read_reference(bundle)
    if found is None:
        raise DataError(
            f"{bundle.path} has no {REFERENCE}, so its variants cannot be checked",
            advice="Convert without --no-reference.",
        )
    inputs, outputs = found
    ends = [({t.name for t in s.inputs}, {t.name for t in s.outputs}) for s in bundle.manifest.signatures.values()]
    if (set(inputs), set(outputs)) not in ends:
        named = f"inputs {sorted(inputs)} and outputs {sorted(outputs)}"
        raise DataError(
            f"{bundle.file(REFERENCE)} has {named}, which no signature of the bundle has",
            advice="Convert the model again.",
        )
    return Samples(inputs=inputs, whole=has_whole_calls(bundle, inputs)), outputs
