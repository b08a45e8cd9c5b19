"""A model in, a proved bundle out.

source -> freeze once -> lower once -> calibrate once -> one .tflite a scheme, ONNX, TF.js, a trainable .tflite
       -> every variant answers the same inputs in its own runtime -> written only if each agrees
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import platform
from collections.abc import Iterator, Mapping, Sequence
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
    Quantization,
    Requires,
    Scheme,
    Signature,
    TensorSpec,
    Variant,
    file_entries,
    is_bundle,
    read_bundle,
)
from edgeloop.canonical import canonical_json
from edgeloop.convert import freeze, onnx, prove, tfjs, tflite
from edgeloop.convert.parity import Parity
from edgeloop.convert.samples import Samples, read_samples, synthetic
from edgeloop.convert.source import Source, SourceKind, open_source
from edgeloop.convert.trainable import TrainableOptions, to_trainable, weight_table
from edgeloop.edge.flatbuffer import read_tflite
from edgeloop.errors import DataError, OptionsError, WriteError

REFERENCE_SAMPLES = 16
PROOF_SAMPLES = 256
CALIBRATION_AT_LEAST = 16
PACKAGES = ("tensorflow", "keras", "ai-edge-quantizer", "ai-edge-litert", "tf2onnx", "onnx", "tensorflowjs", "numpy")
TRAINABLE = "trainable"
STEPS = 7  # open, freeze, lower, quantize, ONNX, TF.js, trainable


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOptions:
    """What to write.

    Attributes:
        to: Formats. None: TFLite, ONNX and TF.js, as far as the source allows.
        schemes: Schemes of the .tflite files. None: the float ones, and int8 where there is calibration data.
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


@dataclass(frozen=True, slots=True)
class _Draft:
    """A variant before its files have hashes."""

    variant: Variant
    content: bytes | None = None  # None: the files are in the folder already


def convert(
    model: str | Path, out: str | Path, options: ConvertOptions = ConvertOptions(), progress: Progress = silent
) -> Converted:
    """Convert one signature of a Keras 3 model, SavedModel or .tflite into the bundle folder `out`.

    Raises:
        ModelError: The model is refused, or an export cannot hold it.
        OptionsError: What is asked for contradicts itself or the source.
        DataError: Calibration or evaluation data does not fit the model.
        ParityError: A variant does not compute what the source does; nothing is written.
        MissingExtra: A package or runtime that is needed is not installed.
        WriteError: `out` cannot be written, or holds something that is no bundle.
    """
    out = Path(out)
    _check_target(out)
    formats = set(options.to or (Format.TFLITE, Format.ONNX, Format.TFJS))
    with contextlib.ExitStack() as stack:
        is_tflite = Path(model).suffix == ".tflite"
        javascript = stack.enter_context(tfjs.tfjs_converter()) if Format.TFJS in formats and not is_tflite else None
        source = open_source(model, options.signature)
        formats, notes = _possible(formats, source, options)
        samples = _samples(source, options)
        calibration = read_samples(options.calibration, source.inputs) if options.calibration else None
        schemes = _schemes(options, calibration)
        progress("convert", 1, STEPS)
        folder = stack.enter_context(new_folder(out))
        drafts = list(_exports(source, formats, schemes, calibration, options, javascript, folder, progress))
        for draft in drafts:
            if draft.content is not None:
                (folder / draft.variant.entry).write_bytes(draft.content)
        variants = [_with_files(draft.variant, folder) for draft in drafts]
        signatures = _signatures(source, drafts, samples, options.labels)
        expected = _answers(source, samples)
        rows = prove.prove(folder, variants, signatures, samples, expected, progress)
        prove.check(rows)
        if options.reference:
            _write_reference(folder, samples.take(REFERENCE_SAMPLES), expected)
        manifest = Manifest(
            name=options.name or Path(model).stem,
            version=options.release,
            source={"file": Path(model).name, "format": source.kind.value, "sha256": source.sha256},
            files=file_entries(folder),
            signatures=signatures,
            variants=tuple(_proved(v, rows) for v in variants),
            weights=weight_table(source.model) if source.kind is SourceKind.KERAS else (),
            toolchain=_toolchain(),
        )
        data = manifest.to_bytes()
        (folder / MANIFEST).write_bytes(data)
        (folder / PROOF).write_bytes(canonical_json(_proof(data, samples, rows)))
    if schemes and Scheme.INT8 not in schemes and options.schemes is None:
        names = " and ".join(t.name for t in source.inputs)
        notes.append(f"int8 was not written: it needs real inputs. Pass --calibration F.npz with {names}, 16 or more.")
    if options.reference:
        what = "real inputs" if samples.real else "made-up inputs"
        notes.append(f"{REFERENCE} holds {min(len(samples), REFERENCE_SAMPLES)} {what}; --no-reference leaves it out.")
    return Converted(bundle=read_bundle(out), parity=tuple(rows), notes=tuple(notes))


def _check_target(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise WriteError(f"{out} is a file. Expected a new folder, or a bundle to replace.")
    if out.is_dir() and any(out.iterdir()) and not is_bundle(out):
        raise WriteError(f"{out} holds files that are no bundle. They are left alone; choose another folder.")


def _possible(formats: set[Format], source: Source, options: ConvertOptions) -> tuple[set[Format], list[str]]:
    """What this source can become; what was asked for by name and cannot be is an error."""
    if source.kind is not SourceKind.TFLITE:
        if options.trainable and source.kind is not SourceKind.KERAS:
            raise OptionsError("--trainable needs the Keras model: a SavedModel no longer has layers.")
        return formats, []
    if options.trainable:
        raise OptionsError("--trainable needs the Keras model: a .tflite no longer has layers.")
    if options.to and Format.TFJS in options.to:
        raise OptionsError("a .tflite does not become TF.js. Start from the Keras model, or leave tfjs out of --to.")
    return formats - {Format.TFJS}, [] if options.to else ["TF.js was not written: it needs the Keras model."]


def _schemes(options: ConvertOptions, calibration: Samples | None) -> tuple[Scheme, ...]:
    if calibration is not None and len(calibration) < CALIBRATION_AT_LEAST:
        raise DataError(
            f"int8 needs at least {CALIBRATION_AT_LEAST} calibration samples, got {len(calibration)}. "
            "Pass more real inputs, or leave --calibration out: dynamic needs none."
        )
    if options.schemes is not None:
        return tuple(dict.fromkeys(options.schemes))
    floats = (Scheme.FLOAT32, Scheme.FLOAT16, Scheme.DYNAMIC)
    return (*floats, Scheme.INT8) if calibration is not None else floats


def _samples(source: Source, options: ConvertOptions) -> Samples:
    """What the proof runs on: evaluation data, else calibration data, else made-up values."""
    if options.evaluation is not None:
        return read_samples(options.evaluation, source.inputs, labels=True)  # all of it: accuracy is about the whole
    if options.calibration is not None:
        return read_samples(options.calibration, source.inputs).take(PROOF_SAMPLES)
    return synthetic(source.inputs)


def _exports(
    source: Source,
    formats: set[Format],
    schemes: Sequence[Scheme],
    calibration: Samples | None,
    options: ConvertOptions,
    javascript: tfjs.TfjsConverter | None,
    folder: Path,
    progress: Progress,
) -> Iterator[_Draft]:
    frozen = freeze.freeze(source) if source.graph is not None else None
    progress("convert", 2, STEPS)
    if Format.TFLITE in formats:
        float32 = tflite.lower(frozen, source) if source.flatbuffer is None else source.flatbuffer
        progress("convert", 3, STEPS)
        ranges = None
        if Scheme.INT8 in schemes and calibration is not None:
            ranges = tflite.calibrate(float32, source.signature, calibration.inputs, progress)
        for scheme in schemes:
            data = tflite.quantize(float32, scheme, ranges)
            yield _draft(scheme.value, f"{scheme.value}.tflite", Format.TFLITE, scheme, (source.signature,), data)
    progress("convert", 4, STEPS)
    if Format.ONNX in formats:
        data = onnx.to_onnx(frozen, source) if frozen else onnx.tflite_to_onnx(source.flatbuffer or b"", source)
        yield _draft("onnx", "model.onnx", Format.ONNX, Scheme.FLOAT32, (source.signature,), data)
    progress("convert", 5, STEPS)
    if Format.TFJS in formats and javascript is not None:
        javascript.convert(frozen, source, folder / "tfjs")
        yield _draft("tfjs", "tfjs/model.json", Format.TFJS, Scheme.FLOAT32, (source.signature,), None)
    progress("convert", 6, STEPS)
    if options.trainable is not None:
        data = to_trainable(source.model, options.trainable)
        names = tuple(s.name for s in read_tflite(data).signatures)
        yield _draft(TRAINABLE, "trainable.tflite", Format.TFLITE, Scheme.FLOAT32, names, data)
    progress("convert", 7, STEPS)


def _draft(
    id: str, entry: str, format: Format, scheme: Scheme, signatures: tuple[str, ...], content: bytes | None
) -> _Draft:
    ends = _ends(content) if content is not None and format is Format.TFLITE else {}
    notes = ("every signature runs at the batch of train",) if id == TRAINABLE else ()
    return _Draft(Variant(id, entry, (entry,), format, scheme, signatures, ends, notes=notes), content)


def _ends(data: bytes) -> dict[str, Quantization]:
    """What the tensors at the ends of every signature hold."""
    model = read_tflite(data)
    ends = [(s.graph, item) for s in model.signatures for item in (*s.inputs.items(), *s.outputs.items())]
    tensors = {name: model.graphs[graph].tensors[index] for graph, (name, index) in ends}
    return {
        name: Quantization(t.dtype, t.scale[0] if t.scale else 0.0, t.zero_point[0] if t.zero_point else 0)
        for name, t in tensors.items()
    }


def _with_files(variant: Variant, folder: Path) -> Variant:
    if variant.format is not Format.TFJS:
        return variant
    files = sorted(f.relative_to(folder).as_posix() for f in (folder / "tfjs").iterdir())
    return replace(variant, files=tuple(files))


def _proved(variant: Variant, rows: Sequence[Parity]) -> Variant:
    runtimes = tuple(dict.fromkeys(row.runtime for row in rows if row.variant == variant.id and row.passed))
    return replace(variant, requires=Requires(runtimes=runtimes))


def _signatures(
    source: Source, drafts: Sequence[_Draft], samples: Samples, labels: tuple[str, ...]
) -> dict[str, Signature]:
    """The source's own signature, and those that only the trainable variant has, read from its flatbuffer.

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
        if draft.variant.id != TRAINABLE or draft.content is None:
            continue
        model = read_tflite(draft.content)
        for signature in model.signatures:
            tensors = model.graphs[signature.graph].tensors
            sides = [
                tuple(TensorSpec(n, tensors[i].shape, tensors[i].dtype) for n, i in side.items())
                for side in (signature.inputs, signature.outputs)
            ]
            signatures.setdefault(signature.name, Signature(*sides))
    return signatures


def _answers(source: Source, samples: Samples, batch: int = 64) -> dict[str, np.ndarray]:
    """The source's outputs for every sample; a fixed batch in the model sets the step."""
    fixed = source.inputs[0].shape[0]
    size, count = fixed or batch, len(samples)
    parts = []
    for start in range(0, count, size):
        index = np.arange(start, start + size) % count if fixed else np.arange(start, min(start + size, count))
        parts.append(source.call({n: a[index] for n, a in samples.inputs.items()}))
    return {n: np.concatenate([np.asarray(p[n]) for p in parts])[:count] for n in parts[0]}


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
