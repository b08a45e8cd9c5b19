"""A model in, a proved bundle out.

source -> freeze once -> lower once -> calibrate once -> one .tflite a scheme, ONNX, TF.js, a trainable .tflite
       -> every variant answers the same inputs in its own runtime -> written only if each agrees
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.answer import Progress, silent
from edgeloop.atomic import new_folder
from edgeloop.bundle import (
    MANIFEST,
    PROOF,
    REFERENCE,
    Bundle,
    Format,
    Manifest,
    Requires,
    Scheme,
    Signature,
    TensorSpec,
    file_entries,
    is_bundle,
    read_bundle,
)
from edgeloop.canonical import canonical_json
from edgeloop.convert import prove, tfjs
from edgeloop.convert.batches import in_batches
from edgeloop.convert.exports import TRAINABLE, Draft, Plan, as_it_is, exports
from edgeloop.convert.parity import Parity
from edgeloop.convert.samples import Samples, read_samples, synthetic
from edgeloop.convert.source import Source, SourceKind, identify, open_source
from edgeloop.convert.trainable import TrainableOptions, weight_table
from edgeloop.edge.flatbuffer import read_tflite
from edgeloop.errors import DataError, ModelError, OptionsError, WriteError

REFERENCE_SAMPLES = 16
PROOF_SAMPLES = 256
CALIBRATION_AT_LEAST = 16
PACKAGES = ("tensorflow", "keras", "ai-edge-quantizer", "ai-edge-litert", "tf2onnx", "onnx", "tensorflowjs", "numpy")
WRITABLE = frozenset({Format.TFLITE, Format.ONNX, Format.TFJS})


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOptions:
    """What to write.

    Attributes:
        to: Formats. None: TFLite, and ONNX and TF.js as far as they can hold the model.
        schemes: Schemes of the .tflite files. None: the float ones, and int8 where there is calibration data. A
            .tflite that is quantized already is taken as it is.
        calibration: .npz (or folder of them) with real inputs, full shapes, 16 samples or more.
        evaluation: .npz with inputs and labels `y`: proves on them, and says each variant's accuracy.
        trainable: Also one .tflite that a device can train (Keras classifiers).
        reference: Put up to 16 of the inputs and the source's answers into the bundle.
        labels: Names of the classes, in order.
    """

    to: tuple[Format, ...] | None = None
    schemes: tuple[Scheme, ...] | None = None
    calibration: Path | None = None
    evaluation: Path | None = None
    trainable: TrainableOptions | None = None
    signature: str | None = None
    release: int = 1
    name: str | None = None
    reference: bool = True
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.release < 1:
            raise OptionsError(f"release {self.release} is no release. Expected 1 or more.")
        if self.to is not None and Format.SAVEDMODEL in self.to:
            raise OptionsError("savedmodel is not written by this version. Choose from tflite, onnx, tfjs.")
        if self.schemes and Scheme.INT8 in self.schemes and self.calibration is None:
            raise OptionsError("int8 needs real inputs to measure ranges with. Pass --calibration F.npz, or drop int8.")
        if self.to is not None and Format.TFLITE not in self.to and (self.schemes or self.trainable):
            raise OptionsError("schemes and --trainable are about .tflite files, which --to leaves out. Add tflite.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A bundle on disk and the proof in it. `notes` say in one line each what a user should know."""

    bundle: Bundle
    parity: tuple[Parity, ...]
    notes: tuple[str, ...]


def convert(
    model: str | Path, out: str | Path, options: ConvertOptions = ConvertOptions(), progress: Progress = silent
) -> Converted:
    """Convert one signature of a Keras 3 model, SavedModel or .tflite into the bundle folder `out`.

    Raises:
        ModelError: The model is refused, or an export cannot hold it.
        OptionsError: What is asked for contradicts itself or the source.
        DataError: Calibration or evaluation data does not fit the model, or the source itself answers NaN to it.
        ParityError: A variant does not compute what the source does; nothing is written.
        MissingExtra: A package or runtime that is needed is not installed.
        WriteError: `out` cannot be written, or holds something that is no bundle.
    """
    # resolved: the bundle takes the place of `out`, which may be the folder we stand in
    model, out = _utf8(Path(model)).resolve(), _utf8(Path(out)).resolve()
    _check_target(out)
    kind = identify(model)
    notes: list[str] = []
    with contextlib.ExitStack() as stack:
        formats = _formats(options, kind, notes)
        # started first: it loads TensorFlow while this process loads the model
        javascript = stack.enter_context(tfjs.tfjs_converter()) if Format.TFJS in formats else None
        source = open_source(model, options.signature)
        plan = _plan(source, formats, options, notes)
        samples = _samples(source, options, plan)
        folder = stack.enter_context(new_folder(out))
        drafts = list(exports(source, plan, javascript, notes, progress))
        for path, content in (item for draft in drafts for item in draft.files.items()):
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes(content)
        signatures = _signatures(source, drafts, samples, options.labels)
        expected = _answers(source, samples)
        variants = [draft.variant for draft in drafts]
        rows = prove.prove(folder, variants, signatures, samples, expected, progress)
        prove.check(rows, "Nothing was written; leave that scheme out, or change the model.")
        if options.reference:
            _write_reference(folder, samples.take(REFERENCE_SAMPLES), expected)
            what = "real inputs" if samples.real else "made-up inputs"
            count = min(len(samples), REFERENCE_SAMPLES)
            notes.append(f"{REFERENCE} holds {count} {what}; --no-reference leaves it out.")
        proved = {v.id: tuple(dict.fromkeys(r.runtime for r in rows if r.variant == v.id)) for v in variants}
        manifest = Manifest(
            name=options.name or model.stem,
            version=options.release,
            source={"file": model.name, "format": source.kind.value, "sha256": source.sha256},
            files=file_entries(folder),
            signatures=signatures,
            variants=tuple(replace(v, requires=Requires(runtimes=proved[v.id])) for v in variants),
            weights=weight_table(source.model) if source.kind is SourceKind.KERAS else (),
            toolchain=_toolchain(),
        )
        data = manifest.to_bytes()
        (folder / MANIFEST).write_bytes(data)
        (folder / PROOF).write_bytes(canonical_json(_proof(data, samples, rows)))
    return Converted(bundle=read_bundle(out), parity=tuple(rows), notes=tuple(notes))


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


def _formats(options: ConvertOptions, kind: SourceKind, notes: list[str]) -> frozenset[Format]:
    """What this kind of source can become; what was asked for by name and cannot be is an error."""
    if options.trainable and kind is not SourceKind.KERAS:
        raise OptionsError(f"--trainable needs the Keras model: a {kind.value} file no longer has layers.")
    formats = frozenset(options.to or WRITABLE)
    if kind is not SourceKind.TFLITE or Format.TFJS not in formats:
        return formats
    if options.to:
        raise OptionsError("a .tflite does not become TF.js. Start from the Keras model, or leave tfjs out of --to.")
    notes.append("tfjs was not written: it needs the Keras model or a SavedModel.")
    return formats - {Format.TFJS}


def _plan(source: Source, formats: frozenset[Format], options: ConvertOptions, notes: list[str]) -> Plan:
    calibration = read_samples(options.calibration, source.inputs) if options.calibration else None
    if calibration is not None and len(calibration) < CALIBRATION_AT_LEAST:
        raise DataError(
            f"int8 needs at least {CALIBRATION_AT_LEAST} calibration samples, got {len(calibration)}. "
            "Pass more real inputs, or leave --calibration out: dynamic needs none."
        )
    schemes: tuple[Scheme, ...] | None = options.schemes
    if source.flatbuffer is not None and as_it_is(source.flatbuffer):
        if schemes or (options.to and Format.ONNX in options.to):
            raise ModelError(
                f"{source.path} is quantized or keeps state already, so it is taken as it is. "
                "Start from the float model for other schemes or formats."
            )
        notes.append("The .tflite is quantized or keeps state already: it was taken as it is.")
        formats -= {Format.ONNX}
    elif schemes is None:
        schemes = (Scheme.FLOAT32, Scheme.FLOAT16, Scheme.DYNAMIC)
        if calibration is not None:
            schemes += (Scheme.INT8,)
        elif Format.TFLITE in formats:
            names = " and ".join(t.name for t in source.inputs)
            notes.append(
                f"int8 was not written: it needs real inputs. Pass --calibration F.npz with {names}, 16 or more."
            )
    return Plan(
        formats=formats,
        named=frozenset(options.to or ()) | {Format.TFLITE},
        schemes=tuple(dict.fromkeys(schemes)) if schemes is not None else None,
        calibration=calibration,
        trainable=options.trainable,
    )


def _samples(source: Source, options: ConvertOptions, plan: Plan) -> Samples:
    """What the proof runs on: evaluation data, else calibration data, else made-up values."""
    if options.evaluation is not None:
        return read_samples(options.evaluation, source.inputs, labels=True)  # all of it: accuracy is about the whole
    if plan.calibration is not None:
        return plan.calibration.take(PROOF_SAMPLES)
    return synthetic(source.inputs)


def _answers(source: Source, samples: Samples) -> dict[str, np.ndarray]:
    expected = in_batches(source.call, samples.inputs, source.inputs[0].shape[0])
    for name, value in expected.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            what = (
                "these inputs" if samples.real else "made-up inputs between 0 and 1; pass real ones with --calibration"
            )
            raise DataError(
                f"the source itself answers NaN or infinity in {name!r} to {what}. Nothing can be compared."
            )
    return expected


def _signatures(
    source: Source, drafts: Sequence[Draft], samples: Samples, labels: tuple[str, ...]
) -> dict[str, Signature]:
    """The source's own signature, and those that only a .tflite with several has, read from its flatbuffer.

    The range of an input is what real samples of it span.
    """
    inputs, outputs = source.inputs, source.outputs
    if samples.real:
        spans = {n: (float(a.min()), float(a.max())) for n, a in samples.inputs.items()}
        inputs = tuple(replace(t, range=spans[t.name]) for t in inputs)
    if labels:
        if len(outputs) != 1 or outputs[0].shape[-1] != len(labels):
            raise OptionsError(f"{len(labels)} labels do not fit outputs {[list(o.shape) for o in outputs]}.")
        outputs = (replace(outputs[0], labels=labels),)
    signatures = {source.signature: Signature(inputs, outputs)}
    for draft in drafts:
        if draft.variant.format is not Format.TFLITE or len(draft.variant.signatures) == 1:
            continue
        model = read_tflite(draft.files[draft.variant.entry])
        for signature in model.signatures:
            tensors = model.graphs[signature.graph].tensors
            sides = [
                tuple(TensorSpec(n, tensors[i].shape, tensors[i].dtype) for n, i in side.items())
                for side in (signature.inputs, signature.outputs)
            ]
            signatures.setdefault(signature.name, Signature(*sides))
    return signatures


def _write_reference(folder: Path, samples: Samples, expected: Mapping[str, np.ndarray]) -> None:
    arrays: dict[str, Any] = {f"in/{n}": a for n, a in samples.inputs.items()}
    arrays |= {f"out/{n}": a[: len(samples)] for n, a in expected.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # stored, not deflated; its entries carry no clock: the same arrays, the same bytes
    (folder / REFERENCE).write_bytes(buffer.getvalue())


def _proof(manifest: bytes, samples: Samples, rows: Sequence[Parity]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for name in sorted(samples.inputs):
        digest.update(name.encode() + samples.inputs[name].tobytes())
    return {
        "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
        "host": {"machine": platform.machine(), "system": platform.system(), "python": platform.python_version()},
        "toolchain": _toolchain(),
        "evaluation": {
            "samples": len(samples),
            "real": samples.real,
            "data_sha256": digest.hexdigest(),
            "metric": "accuracy" if samples.labels is not None else None,
        },
        "parity": [asdict(row) for row in rows],
    }


def _toolchain() -> dict[str, str]:
    found = {"edgeloop": version("edgeloop")}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


__all__ = ["TRAINABLE", "ConvertOptions", "Converted", "convert"]
