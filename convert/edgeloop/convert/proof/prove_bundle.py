"""What the worker left in a new bundle folder in; its manifest, proof.json and reference.npz out, once it is proved."""

from __future__ import annotations

import io
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.bundle import (
    MANIFEST,
    MANIFEST_SHA256,
    PROOF,
    REFERENCE,
    Manifest,
    Variant,
    file_entries,
    parse_manifest,
    proof_hash,
)
from edgeloop.canonical import canonical_json
from edgeloop.convert import cache
from edgeloop.convert.build import ConversionJob
from edgeloop.convert.form import FormLog, form_of
from edgeloop.convert.plan import proof_samples, read_calibration, with_looked_up
from edgeloop.convert.proof.coarse_inputs import coarse_inputs
from edgeloop.convert.proof.parity import check_parity, disagreeing, with_runtimes
from edgeloop.convert.proof.prove import prove
from edgeloop.convert.proof.worst_layer import layer_names
from edgeloop.convert.samples import Samples
from edgeloop.errors import EdgeloopError, MissingExtra, ParityError
from edgeloop.hashes import digest_of
from edgeloop.progress import Progress, Say
from edgeloop.runtime.parity.compare import Parity, label_task, reason
from edgeloop.runtime.parity.metrics import scores

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


def prove_bundle(job: ConversionJob, made: Mapping[str, Any], progress: Progress, say: Say) -> list[Parity]:
    """Prove what the worker left in `job.folder`, and write manifest.json, proof.json and reference.npz there.

    `made` is what `build` returned. A variant that was not named and does not agree is taken away. Raises as `prove`
    and `check_parity`, where a named one, or every variant, does not agree.
    """
    draft = parse_manifest((job.folder / MANIFEST).read_bytes())
    signature, options, named = draft.signatures[made["signature"]], job.options, made["named"]
    data = with_looked_up(options, made["looked_up"])
    calibration = read_calibration(data, signature.inputs, whole=made["whole"])
    samples = proof_samples(
        data,
        signature.inputs,
        calibration,
        whole=made["whole"],
        span=made["span"],
        sizes=made["sizes"],
        below=made["below"],
    )
    expected = {t.name: np.load(job.scratch / f"{i}.npy", mmap_mode="r") for i, t in enumerate(signature.outputs)}
    layers = layer_names(draft.weights)
    variants, signatures = draft.variants, draft.signatures
    unrun: dict[str, EdgeloopError] = {}

    def missing(variant: Variant, e: MissingExtra) -> None:
        unrun[variant.id] = e

    rows = prove(
        job.folder,
        variants,
        signatures,
        samples,
        expected,
        options.prove,
        progress,
        layers=layers,
        source=draft.source,
        missing=missing,
    )
    log = FormLog(job.origin["file"], job.out, say, list(draft.left_out))
    variants, parity = _agreeing(job, draft, rows, unrun, named, log)
    coarse = coarse_inputs(parity, variants, samples)
    if coarse is not None:
        say(coarse)
    if options.reference:
        say(_write_reference(job.folder, samples.take(REFERENCE_SAMPLES), expected))
    toolchain = cache.versions(PACKAGES)
    proved = with_runtimes(variants, parity)
    proof = _proof(toolchain, samples, expected, parity)
    manifest = replace(
        draft,
        files=file_entries(job.folder),
        variants=proved,
        toolchain=toolchain,
        left_out=tuple(log.left_out),
        proof_sha256=proof_hash(proof),
    ).to_bytes()
    (job.folder / MANIFEST).write_bytes(manifest)
    (job.folder / PROOF).write_bytes(canonical_json({**proof, MANIFEST_SHA256: digest_of(manifest)}))
    return parity


def _agreeing(
    job: ConversionJob,
    draft: Manifest,
    rows: list[Parity],
    unrun: Mapping[str, EdgeloopError],
    named: Collection[str],
    log: FormLog,
) -> tuple[tuple[Variant, ...], list[Parity]]:
    """The variants that agree, or may stay unproved, and their records; the files of the others are removed."""
    advice = "Nothing was written. Leave the variant out with --to or --schemes, or change the model."
    for id in named:
        if id in unrun:
            raise unrun[id]
    check_parity([row for row in rows if row.variant in named], advice)
    bad = {
        id: ParityError(reason(worst), advice="Change the model, or choose another scheme.")
        for id, worst in disagreeing(rows).items()
    } | dict(unrun)
    if len(bad) == len(draft.variants):
        check_parity(rows, advice)
        raise next(iter(unrun.values()))
    for variant in draft.variants:
        if variant.id in bad:
            log.add([form_of(variant)], bad[variant.id])
            for file in variant.files:
                (job.folder / file).unlink()
            if "/" in variant.entry:
                (job.folder / variant.entry).parent.rmdir()
    return tuple(v for v in draft.variants if v.id not in bad), [row for row in rows if row.variant not in bad]


def _write_reference(folder: Path, samples: Samples, expected: Mapping[str, np.ndarray]) -> str:
    arrays: dict[str, Any] = {f"in/{n}": a for n, a in samples.inputs.items()}
    arrays |= {f"out/{n}": a[: len(samples)] for n, a in expected.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # stored, not deflated; its entries carry no clock: the same arrays, the same bytes
    (folder / REFERENCE).write_bytes(buffer.getvalue())
    what = "real inputs" if samples.real else "generated inputs"
    return f"{REFERENCE} holds {len(samples)} {what}. Pass --no-reference to leave the file out."


def _proof(
    toolchain: Mapping[str, str], samples: Samples, expected: Mapping[str, np.ndarray], rows: Sequence[Parity]
) -> dict[str, Any]:
    """Of proof.json all but the hash of the manifest, which names this proof."""
    task = label_task(expected, samples.labels, samples.label_output)
    own = None
    if task is not None and samples.labels is not None:
        own = scores(task, expected[samples.label_output or next(iter(expected))], samples.labels)
    return {
        "host": {"machine": platform.machine(), "system": platform.system(), "python": platform.python_version()},
        "toolchain": dict(toolchain),
        "evaluation": {
            "samples": len(samples),
            "real": samples.real,
            "data_sha256": samples.digest(),
            "metric": own.metric if own else None,
            "source": asdict(own) if own else None,
        },
        "parity": [asdict(row) for row in rows],
    }
