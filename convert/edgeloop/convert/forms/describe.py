"""What a manifest says of a model's tensors, as TFLite metadata says it."""

from __future__ import annotations

from collections.abc import Iterable

from edgeloop.bundle import Kind, Signature, TensorSpec
from edgeloop.files.metadata import Color, Content, Metadata, TensorMetadata

CONTENTS = {Kind.IMAGE: Content.IMAGE, Kind.AUDIO: Content.AUDIO}
COLORS = {3: Color.RGB, 1: Color.GRAYSCALE}


def describe(name: str, signatures: Iterable[Signature], **texts: str) -> Metadata:
    """What the specs of a model's signatures say, ready to be written. `texts` are further fields of `Metadata`.

    A name that several signatures have is described as the first of them has it.
    """
    sides: list[dict[str, TensorMetadata]] = [{}, {}]
    for signature in signatures:
        for side, specs in zip(sides, (signature.inputs, signature.outputs), strict=True):
            for spec in specs:
                side.setdefault(spec.name, _described(spec))
    return Metadata(name=name, inputs=tuple(sides[0].values()), outputs=tuple(sides[1].values()), **texts)


def _described(spec: TensorSpec) -> TensorMetadata:
    content = CONTENTS.get(spec.kind, Content.FEATURE)
    image = content is Content.IMAGE and len(spec.shape) == 4
    height, width, channels = spec.shape[1:] if image else (None, None, None)
    mean, std = _normalization(spec) if image else ((), ())
    low, high = ((float(v),) for v in spec.range) if spec.range else ((), ())
    return TensorMetadata(
        name=spec.name,
        description=_sentence(spec),
        content=content,
        color=COLORS.get(channels or 0, Color.UNKNOWN),
        size=(height, width) if height and width else None,
        sample_rate_hz=spec.sample_rate_hz or 0,
        channels=1 if content is Content.AUDIO and len(spec.shape) == 2 else 0,
        mean=mean,
        std=std,
        low=low,
        high=high,
        labels=spec.labels,
    )


def _sentence(spec: TensorSpec) -> str:
    shape = " x ".join("any" if d is None else str(d) for d in spec.shape[1:]) or "1"
    values = f", values from {spec.range[0]:g} to {spec.range[1]:g}" if spec.range else ""
    return f"{spec.kind.value} of {shape}{values}" if spec.kind is not Kind.OTHER else f"{shape} numbers{values}"


def _normalization(spec: TensorSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """How pixels of 0..255 become what the image input takes, told from the range that its real samples have.

    Apps refuse a float image without it. Nothing is said of a range that is none of the three usual ones.
    """
    low, high = spec.range or (-2.0, 2.0)
    if low >= 0 and 1 < high <= 255:
        return (0.0,), (1.0,)
    if 0 <= low < high <= 1:
        return (0.0,), (255.0,)
    if -1 <= low < 0 < high <= 1:
        return (127.5,), (127.5,)
    return (), ()
