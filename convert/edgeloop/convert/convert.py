"""A model in, a proved bundle out. This process loads no framework; what touches the model runs in a limited child.

cache? -> worker: every variant and the source's answers -> each variant answers the same inputs in its own runtime
       -> written only if each agrees -> kept in the cache
"""

from __future__ import annotations

import contextlib
import io
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.atomic import new_folder, write_file
from edgeloop.bundle import (
    MANIFEST,
    PROOF,
    REFERENCE,
    Bundle,
    file_entries,
    is_bundle,
    parse_manifest,
    read_bundle,
)
from edgeloop.canonical import canonical_json, read_json
from edgeloop.convert import cache
from edgeloop.convert.build import JOURNAL, ConversionJob
from edgeloop.convert.compression.compress import compress
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.plan import Say, proof_samples, read_calibration, wanted_formats
from edgeloop.convert.proof.parity import check, stamped
from edgeloop.convert.proof.prove import prove
from edgeloop.convert.proof.worst_layer import layer_names
from edgeloop.convert.samples import Samples
from edgeloop.convert.sources.onnx_environment import onnx2tf_python
from edgeloop.convert.sources.safety_onnx import external_files
from edgeloop.convert.sources.source import SourceKind, identify, source_digest
from edgeloop.errors import MissingExtra, OptionsError, WriteError
from edgeloop.hashes import digest_of
from edgeloop.processes.job import run_limited
from edgeloop.progress import Progress, silent
from edgeloop.runtime.device import device_environment
from edgeloop.runtime.parity.compare import Parity

WORKER = ("-m", "edgeloop.convert.worker")
SEARCH, REPORT = "search.json", "report.html"
BESIDE = (SEARCH, REPORT)
DEFAULTS = ConvertOptions()
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertResult:
    """A bundle on disk and the proof in it.

    Attributes:
        notes: One line each that a user should know.
        search: What was tried, where a search was asked for: the JSON of `OUT.search.json`.
        cached: Nothing had changed, so it came from the cache.
    """

    bundle: Bundle
    parity: tuple[Parity, ...]
    notes: tuple[str, ...]
    search: Mapping[str, Any] | None = None
    cached: bool = False


def convert(
    model: str | Path, out: str | Path, options: ConvertOptions = DEFAULTS, progress: Progress = silent
) -> ConvertResult:
    """Convert one signature of a Keras model, SavedModel, .onnx or .tflite into the bundle folder `out`.

    Raises:
        ModelError: The model is refused, went over a limit, or an export cannot hold it.
        OptionsError: What is asked for contradicts itself or the source.
        DataError: Calibration or evaluation data does not fit the model, or the source itself answers NaN to it.
        ParityError: A variant does not compute what the source does; nothing is written.
        BudgetError: No mix of schemes keeps the accuracy.
        MissingExtra: A package or runtime that is needed is not installed.
        WriteError: `out` cannot be written, or holds something that is no bundle.
    """
    # resolved: the bundle takes the place of `out`, which may be the folder we stand in
    model, out = _utf8(Path(model)).resolve(), _utf8(Path(out)).resolve()
    _check_target(out)
    kind = identify(model)
    notes: list[str] = []
    formats = wanted_formats(options, kind, notes.append)
    sha256 = source_digest(model)
    key = None
    if options.cache and not any(device.ssh for device in options.prove.on):  # what is installed there may change
        key = cache.cache_key(model, sha256, options, PACKAGES, _pythons(options), _beside(model, kind))
    if key is not None and (kept := cache.find(key, out)):
        progress("convert (unchanged, from the cache)", 1, 1)
        _write_beside(out, kept.beside)
        rows = read_proof(kept.bundle)
        return ConvertResult(
            bundle=kept.bundle, parity=rows, notes=kept.notes, search=_search(kept.beside), cached=True
        )
    if kind is SourceKind.ONNX:
        onnx2tf_python(progress)  # here, because a first use installs an environment, which no limit should end
    with new_folder(out) as folder, tempfile.TemporaryDirectory() as scratch:
        origin = {"file": model.name, "format": kind.value, "sha256": sha256}
        if options.compress is not None and options.train_data is not None:
            made = compress(model, options.compress, options.train_data, scratch, progress, options.limits)
            model, origin["compressed"] = made.path, options.compress.label
            notes += made.notes
        job = ConversionJob(
            model=model,
            origin=origin,
            options=options,
            formats=formats,
            folder=folder,
            scratch=Path(scratch),
            out=out,
        )
        done = run_limited(WORKER, job, options.limits, progress, notes.append)
        parity = _prove(job, done["signature"], progress, notes.append)
        beside = {name: (Path(scratch) / name).read_bytes() for name in BESIDE if (Path(scratch) / name).is_file()}
    bundle = read_bundle(out)
    _write_beside(out, beside)
    if key is not None:
        try:
            cache.keep(key, bundle, notes, beside)
        except WriteError as e:  # the bundle is there; only the next conversion takes as long
            notes.append(f"it was not kept: {e}")
    return ConvertResult(bundle=bundle, parity=tuple(parity), notes=tuple(notes), search=_search(beside))


def _prove(job: ConversionJob, name: str, progress: Progress, say: Say) -> list[Parity]:
    """Prove what the worker left in `job.folder`, and write manifest.json, proof.json and reference.npz there.

    `name` is the signature that was converted. Raises as `prove` and `check`.
    """
    draft = parse_manifest((job.folder / MANIFEST).read_bytes())
    signature, options = draft.signatures[name], job.options
    samples = proof_samples(options, signature.inputs, read_calibration(options, signature.inputs))
    expected = {t.name: np.load(job.scratch / f"{i}.npy", mmap_mode="r") for i, t in enumerate(signature.outputs)}
    layers = layer_names(draft.weights)
    variants, signatures = draft.variants, draft.signatures
    parity = prove(job.folder, variants, signatures, samples, expected, options.prove, progress, layers=layers)
    check(parity, "Nothing was written; leave that scheme out, or change the model.")
    if options.reference:
        say(_write_reference(job.folder, samples.take(REFERENCE_SAMPLES), expected))
    toolchain = cache.versions(PACKAGES)
    files, proved = file_entries(job.folder), stamped(variants, parity)
    data = replace(draft, files=files, variants=proved, toolchain=toolchain).to_bytes()
    (job.folder / MANIFEST).write_bytes(data)
    (job.folder / PROOF).write_bytes(canonical_json(_proof(data, samples, parity)))
    return parity


def read_proof(bundle: Bundle) -> tuple[Parity, ...]:
    """The records of a bundle's proof.json, written by this version."""
    return tuple(Parity(**row) for row in read_json(bundle.file(PROOF).read_bytes(), PROOF)["parity"])


def _pythons(options: ConvertOptions) -> list[Path]:
    """The other interpreters that prove: their runtimes decide what a proof says."""
    devices = list(options.prove.on)
    with contextlib.suppress(MissingExtra):  # proved without it then
        devices.append(device_environment())
    return [device.python for device in devices]


def _beside(model: Path, kind: SourceKind) -> tuple[Path, ...]:
    """The other files that a model has weights in: an .onnx may keep its tensors there."""
    with contextlib.suppress(ValueError):  # damaged: the worker says so
        return external_files(model) if kind is SourceKind.ONNX else ()
    return ()


def _write_beside(out: Path, files: Mapping[str, bytes]) -> None:
    """`OUT.report.html`, `OUT.search.json`: they measure, so they lie beside the bundle; the journal is done with."""
    for name, content in files.items():
        write_file(out.with_name(f"{out.name}.{name}"), content)
    out.with_name(f"{out.name}.{JOURNAL}").unlink(missing_ok=True)


def _search(beside: Mapping[str, bytes]) -> Mapping[str, Any] | None:
    return read_json(beside[SEARCH], SEARCH) if SEARCH in beside else None


def _utf8(path: Path) -> Path:
    try:
        str(path).encode()
    except UnicodeEncodeError as e:
        raise OptionsError(f"the path {str(path)!a} is not UTF-8, which a manifest is. Rename it.") from e
    return path


def _check_target(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise WriteError(f"{out} is a file. Expected a new folder, or a bundle to replace.")
    if out.is_dir() and any(out.iterdir()) and not is_bundle(out):
        raise WriteError(f"{out} holds files that are no bundle. They are left alone; choose another folder.")


def _write_reference(folder: Path, samples: Samples, expected: Mapping[str, np.ndarray]) -> str:
    arrays: dict[str, Any] = {f"in/{n}": a for n, a in samples.inputs.items()}
    arrays |= {f"out/{n}": a[: len(samples)] for n, a in expected.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # stored, not deflated; its entries carry no clock: the same arrays, the same bytes
    (folder / REFERENCE).write_bytes(buffer.getvalue())
    what = "real inputs" if samples.real else "made-up inputs"
    return f"{REFERENCE} holds {len(samples)} {what}; --no-reference leaves it out."


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
