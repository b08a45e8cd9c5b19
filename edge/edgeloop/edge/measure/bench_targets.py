"""A path in, the model files in it that can be measured out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeloop.bundle import INFERENCE, Bundle, Format, Variant, is_bundle, read_bundle
from edgeloop.errors import ModelError
from edgeloop.hashes import digest
from edgeloop.runtime.parity.reference import has_whole_calls, read_reference, reference_of
from edgeloop.runtime.parity.self_check import Reference

SUFFIXES = {".tflite": Format.TFLITE, ".onnx": Format.ONNX}
MEASURED = frozenset({*SUFFIXES.values(), Format.TFJS})  # of a bundle; TF.js runs in a page


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchTarget:
    """A file to measure, inside `folder`.

    Attributes:
        bytes: Of all its files; `sha256`: of `entry`.
        reference: Real inputs and the source's outputs; None: random inputs are used.
        proved_on: Runtimes by name; None for a bare file, which has no proof.
        batched: The manifest says that the first axis is the batch, also where this file has a fixed one.
    """

    variant: str
    folder: Path
    entry: str
    format: Format
    bytes: int
    sha256: str
    reference: Reference | None = None
    proved_on: tuple[str, ...] | None = None
    batched: bool = False


def find_targets(path: Path) -> list[BenchTarget]:
    """The files of a bundle, or the one .tflite or .onnx, that can be measured.

    Raises:
        ModelError: Neither of these.
        DataError: The bundle's reference.npz is damaged or does not fit its manifest.
    """
    if is_bundle(path):
        return _of_bundle(path)
    if not path.is_file() or path.suffix not in SUFFIXES:
        found = "does not exist" if not path.exists() else "cannot be measured"
        raise ModelError(f"{path} {found}", advice="Expected a bundle, a .tflite or an .onnx file.")
    file = BenchTarget(
        variant=path.stem,
        folder=path.parent,
        entry=path.name,
        format=SUFFIXES[path.suffix],
        bytes=path.stat().st_size,
        sha256=digest(path),
    )
    return [file]


def _of_bundle(path: Path) -> list[BenchTarget]:
    bundle = read_bundle(path)
    real = read_reference(bundle)
    whole = real is not None and has_whole_calls(bundle, real[0])
    return [
        BenchTarget(
            variant=v.id,
            folder=bundle.path,
            entry=v.entry,
            format=v.format,
            bytes=sum(bundle.manifest.files[name].bytes for name in v.files),
            sha256=bundle.manifest.files[v.entry].sha256,
            reference=reference_of(bundle, v, real) if real else None,
            proved_on=v.requires.runtimes,
            batched=not whole and _has_batch(bundle, v),
        )
        for v in bundle.variants
        if v.format in MEASURED
    ]


def _has_batch(bundle: Bundle, variant: Variant) -> bool:
    """Whether every input of the variant's inference has a free first axis in the manifest."""
    names = [name for name in INFERENCE if name in variant.signatures] or list(variant.signatures)
    return all(spec.shape[:1] == (None,) for spec in bundle.manifest.signatures[names[0]].inputs)
