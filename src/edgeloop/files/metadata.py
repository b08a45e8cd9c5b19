"""TFLite metadata, what a .tflite says about itself: the values, and their reader. The standard library alone.

A flatbuffer of its own lies in the buffer that the model names TFLITE_METADATA; the label files are a zip, not
compressed, behind the model in the same file.

Sources
    ids      https://github.com/tensorflow/tflite-support/blob/master/tensorflow_lite_support/metadata/metadata_schema.fbs
    packing  https://ai.google.dev/edge/litert/conversion/tensorflow/metadata
    model    https://github.com/google-ai-edge/LiteRT (tflite/schema/schema.fbs)
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeloop.errors import ModelError
from edgeloop.files.flatbuffer import check_identifier
from edgeloop.files.flatbuffer_table import FlatbufferTable
from edgeloop.files.stored_zip import packed_files

NAME, IDENTIFIER = "TFLITE_METADATA", b"M001"
AXIS_LABELS = 2  # AssociatedFileType.TENSOR_AXIS_LABELS: one line for each position of the last axis
NORMALIZATION = 1  # ProcessUnitOptions.NormalizationOptions
SIDES = ("input_tensor_metadata", "output_tensor_metadata")

# The fields in the order of their ids, the members of a union in that of their tags, as far as they are written or
# shown; "" for a field that is neither.
SCHEMA: dict[str, tuple[tuple[str, str], ...]] = {
    "ModelMetadata": (
        ("name", "text"),
        ("description", "text"),
        ("version", "text"),
        ("subgraph_metadata", "[SubGraphMetadata]"),
        ("author", "text"),
        ("license", "text"),
        ("associated_files", ""),
        ("min_parser_version", "text"),
    ),
    "SubGraphMetadata": (
        ("name", "text"),
        ("description", "text"),
        ("input_tensor_metadata", "[TensorMetadata]"),
        ("output_tensor_metadata", "[TensorMetadata]"),
    ),
    "TensorMetadata": (
        ("name", "text"),
        ("description", "text"),
        ("dimension_names", ""),
        ("content", "Content"),
        ("process_units", "[ProcessUnit]"),
        ("stats", "Stats"),
        ("associated_files", "[AssociatedFile]"),
    ),
    "Content": (
        ("content_properties_type", "u8"),
        ("content_properties", "FeatureProperties|ImageProperties|BoundingBoxProperties|AudioProperties"),
    ),
    "FeatureProperties": (),
    "ImageProperties": (("color_space", "i8"), ("default_size", "ImageSize")),
    "ImageSize": (("width", "u32"), ("height", "u32")),
    "BoundingBoxProperties": (),
    "AudioProperties": (("sample_rate", "u32"), ("channels", "u32")),
    "ProcessUnit": (("options_type", "u8"), ("options", "NormalizationOptions|ScoreCalibrationOptions")),
    "NormalizationOptions": (("mean", "[f32]"), ("std", "[f32]")),
    "ScoreCalibrationOptions": (),
    "Stats": (("max", "[f32]"), ("min", "[f32]")),
    "AssociatedFile": (("name", "text"), ("description", "text"), ("type", "i8"), ("locale", "text")),
}
MODEL: dict[str, tuple[tuple[str, str], ...]] = {
    "Model": (("", ""), ("", ""), ("", ""), ("", ""), ("buffers", ""), ("", ""), ("metadata", "[Metadata]")),
    "Metadata": (("name", "text"), ("buffer", "u32")),
    "Buffer": (("data", "[u8]"),),
}
BUFFERS = 4  # its slot: a model's buffers are its weights, of which one is looked at


class Content(enum.IntEnum):
    """What a tensor holds; the number is the schema's."""

    UNKNOWN = 0
    FEATURE = 1
    IMAGE = 2
    BOUNDING_BOX = 3
    AUDIO = 4


class Color(enum.IntEnum):
    """Of an image; the number is the schema's."""

    UNKNOWN = 0
    RGB = 1
    GRAYSCALE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorMetadata:
    """One input or output, by the name its signature gives it. All numbers are float32 in the file.

    Attributes:
        size: Height and width of an image in pixels, where they are fixed.
        mean, std: An app computes (pixel - mean) / std of pixels 0..255 before it calls the model; one number or one a
            channel. Empty: nothing is said. 0 and 1: the model takes pixels as they are.
        low, high: Smallest and largest value, in the units of the float model.
        labels: One a position of the last axis.
    """

    name: str
    description: str = ""
    content: Content = Content.FEATURE
    color: Color = Color.UNKNOWN
    size: tuple[int, int] | None = None
    sample_rate_hz: int = 0
    channels: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """A model and the tensors of all its signatures, each name once."""

    name: str
    description: str = ""
    version: str = ""
    author: str = ""
    license: str = ""
    inputs: tuple[TensorMetadata, ...] = ()
    outputs: tuple[TensorMetadata, ...] = ()


def read_metadata(data: bytes, name: str = "the model") -> Metadata | None:
    """What a .tflite says about itself; None when it says nothing.

    Raises:
        ModelError: Another file, metadata of another version or damaged, a label file that is not packed in.
    """
    check_identifier(data, name)
    try:
        packed = _buffer(data)
        if packed is None:
            return None
        if packed[4:8] != IDENTIFIER:
            raise ValueError(f"identifier {packed[4:8]!r}, expected {IDENTIFIER!r}")
        raw = FlatbufferTable(packed, SCHEMA).root("ModelMetadata")
        graphs = raw.get("subgraph_metadata", ())
        tensors = [t for graph in graphs for side in SIDES for t in graph.get(side, ())]
        files = packed_files(data, {file for t in tensors if (file := _labels_file(t)) is not None})
        labels = {file: _lines(content) for file, content in files.items()}
        return Metadata(
            **{key: raw.get(key, "") for key in ("name", "description", "version", "author", "license")},
            inputs=_tensors(graphs, SIDES[0], labels),
            outputs=_tensors(graphs, SIDES[1], labels),
        )
    except ValueError as e:
        raise ModelError(
            f"{name} has damaged TFLite metadata ({e})", advice="Convert it again, or remove the metadata."
        ) from e


def _buffer(data: bytes) -> bytes | None:
    tables = FlatbufferTable(data, MODEL)
    model = tables.follow(0)
    for entry in tables.table("Model", model).get("metadata", ()):
        if entry.get("name") == NAME:
            where = tables.field(model, BUFFERS)
            start, count = tables.vector(where, 4) if where is not None else (0, 0)
            index = entry.get("buffer", 0)
            if index >= count:
                raise ValueError(f"buffer {index} of {count}")
            return tables.table("Buffer", tables.follow(start + 4 * index)).get("data", b"")
    return None


def _tensors(
    graphs: Sequence[Mapping[str, Any]], side: str, labels: Mapping[str, tuple[str, ...]]
) -> tuple[TensorMetadata, ...]:
    """A name stands for the same tensor in every signature: the first graph that has it speaks for all."""
    found: list[TensorMetadata] = []
    for graph in graphs:
        earlier = {t.name for t in found}
        found += [t for t in (_tensor(raw, labels) for raw in graph.get(side, ())) if t.name not in earlier]
    return tuple(found)


def _tensor(raw: Mapping[str, Any], labels: Mapping[str, tuple[str, ...]]) -> TensorMetadata:
    content = raw.get("content", {})
    kind, properties = content.get("content_properties_type", 0), content.get("content_properties", {})
    size = properties.get("default_size", {})
    units = [u for u in raw.get("process_units", ()) if u.get("options_type") == NORMALIZATION]
    normalization = units[0].get("options", {}) if units else {}
    stats, file = raw.get("stats", {}), _labels_file(raw)
    if file is not None and file not in labels:
        raise ValueError(f"it names the label file {file[:80]!r}, which is not packed in")
    return TensorMetadata(
        name=raw.get("name", ""),
        description=raw.get("description", ""),
        content=Content(kind) if kind in set(Content) else Content.UNKNOWN,
        color=Color(properties["color_space"]) if properties.get("color_space") in set(Color) else Color.UNKNOWN,
        size=(size["height"], size["width"]) if {"height", "width"} <= size.keys() else None,
        sample_rate_hz=properties.get("sample_rate", 0),
        channels=properties.get("channels", 0),
        mean=normalization.get("mean", ()),
        std=normalization.get("std", ()),
        low=stats.get("min", ()),
        high=stats.get("max", ()),
        labels=labels[file] if file is not None else (),
    )


def _labels_file(tensor: Mapping[str, Any]) -> str | None:
    """The label file that is for no language in particular, else the first."""
    files = [f for f in tensor.get("associated_files", ()) if f.get("type") == AXIS_LABELS and f.get("name")]
    return min(files, key=lambda f: bool(f.get("locale")))["name"] if files else None


def _lines(content: bytes) -> tuple[str, ...]:
    lines = content.decode("utf-8", "replace").split("\n")
    return tuple(line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines))
