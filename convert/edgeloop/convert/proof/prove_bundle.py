"""What the worker left in a new bundle folder in; its manifest, proof.json and reference.npz out, once it is proved."""

from __future__ import annotations

import io
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.bundle import MANIFEST, PROOF, REFERENCE, Bundle, file_entries, parse_manifest
from edgeloop.canonical import canonical_json, read_json
from edgeloop.convert import cache
from edgeloop.convert.build import ConversionJob
from edgeloop.convert.plan import proof_samples, read_calibration
from edgeloop.convert.proof.parity import check_parity, with_runtimes
from edgeloop.convert.proof.prove import prove
from edgeloop.convert.proof.worst_layer import layer_names
from edgeloop.convert.samples import Samples
from edgeloop.hashes import digest_of
from edgeloop.progress import Progress, Say
from edgeloop.runtime.parity.compare import Parity

REFERENCE_SAMPLES = 16
PACKAGES = (
    "edgeloop",
    "tensorflow",
    "keras",
    "tf-keras",
    "tensorflow-model-optimization",
    "ai-edge-quantizer",
    "ai-edge-litert",
    "tf2onnx",
    "onnx",
    "onnxruntime",
    "tensorflowjs",
    "numpy",
)


def prove_bundle(job: ConversionJob, name: str, progress: Progress, say: Say) -> list[Parity]:
    """Prove what the worker left in `job.folder`, and write manifest.json, proof.json and reference.npz there.

    `name` is the signature that was converted. Raises as `prove` and `check_parity`.
    """
    draft = parse_manifest((job.folder / MANIFEST).read_bytes())
    signature, options = draft.signatures[name], job.options
    samples = proof_samples(options, signature.inputs, read_calibration(options, signature.inputs))
    expected = {t.name: np.load(job.scratch / f"{i}.npy", mmap_mode="r") for i, t in enumerate(signature.outputs)}
    layers = layer_names(draft.weights)
    variants, signatures = draft.variants, draft.signatures
    parity = prove(job.folder, variants, signatures, samples, expected, options.prove, progress, layers=layers)
    check_parity(parity, "Nothing was written. Leave that scheme out, or change the model.")
    if options.reference:
        say(_write_reference(job.folder, samples.take(REFERENCE_SAMPLES), expected))
    toolchain = cache.versions(PACKAGES)
    files, proved = file_entries(job.folder), with_runtimes(variants, parity)
    data = replace(draft, files=files, variants=proved, toolchain=toolchain).to_bytes()
    (job.folder / MANIFEST).write_bytes(data)
    (job.folder / PROOF).write_bytes(canonical_json(_proof(data, samples, parity)))
    return parity


def read_proof(bundle: Bundle) -> tuple[Parity, ...]:
    """The records of a bundle's proof.json, written by this version."""
    return tuple(Parity(**row) for row in read_json(bundle.file(PROOF).read_bytes(), PROOF)["parity"])


def _write_reference(folder: Path, samples: Samples, expected: Mapping[str, np.ndarray]) -> str:
    arrays: dict[str, Any] = {f"in/{n}": a for n, a in samples.inputs.items()}
    arrays |= {f"out/{n}": a[: len(samples)] for n, a in expected.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # stored, not deflated; its entries carry no clock: the same arrays, the same bytes
    (folder / REFERENCE).write_bytes(buffer.getvalue())
    what = "real inputs" if samples.real else "generated inputs"
    return f"{REFERENCE} holds {len(samples)} {what}. Pass --no-reference to leave the file out."


def _proof(manifest: bytes, samples: Samples, rows: Sequence[Parity]) -> dict[str, Any]:
    return {
        "manifest_sha256": digest_of(manifest),
        "host": {"machine": platform.machine(), "system": platform.system(), "python": platform.python_version()},
        "toolchain": cache.versions(PACKAGES),
        "evaluation": {
            "samples": len(samples),
            "real": samples.real,
            "data_sha256": samples.digest(),
            "metric": "accuracy" if samples.labels is not None else None,
        },
        "parity": [asdict(row) for row in rows],
    }
