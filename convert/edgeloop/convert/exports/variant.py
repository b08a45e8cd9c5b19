"""A variant that was made, with the content of its files: what every maker of a form hands back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgeloop.bundle import Format, Scheme, Variant
from edgeloop.convert.forms.tflite_file import stored_io
from edgeloop.errors import ModelError

STEPS = 6  # open, lower, quantize, ONNX, TF.js, trainable: of the progress of one conversion


@dataclass(frozen=True, slots=True)
class ExportedVariant:
    """A variant and the content of its files by path; `beside` are files that measure, and stay out of a bundle."""

    variant: Variant
    files: dict[str, bytes]
    beside: dict[str, bytes] = field(default_factory=dict)


def export_variant(
    id: str, format: Format, scheme: Scheme, signatures: Sequence[str], files: dict[str, bytes], *notes: str
) -> ExportedVariant:
    """The variant of these files; the first one, or model.json, is what a runtime opens."""
    entry = "tfjs/model.json" if format is Format.TFJS else next(iter(files))
    io = stored_io(files[entry]) if format is Format.TFLITE else {}
    return ExportedVariant(
        Variant(id, entry, tuple(sorted(files)), format, scheme, tuple(signatures), io, notes=notes), files
    )


def no_smaller(int8: bytes, float32: bytes) -> tuple[str, ...]:
    """The note of a file in int8, or in int8 and float, that saves nothing; none where it saves something."""
    if len(int8) < len(float32):
        return ()
    return (
        f"not smaller than the float32 file ({len(int8):,} and {len(float32):,} bytes): the model has few weights, "
        "and int8 adds scales and conversions.",
    )


def check_smaller(int8: bytes, float32: bytes) -> None:
    """Of a file that nobody asked for. Raises ModelError: it saves nothing."""
    for note in no_smaller(int8, float32):
        raise ModelError(note.removesuffix("."), advice="Use the float32 file.")
