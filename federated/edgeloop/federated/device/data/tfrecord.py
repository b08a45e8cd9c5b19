"""Samples in TFRecord files of tf.train.Example, packed by gzip or not, read without TensorFlow.

`schema.json` of `edgeloop data write` beside them says names, types and labels. Without it a feature is the array of
its numbers, whose shape the model knows, and `y` or `label` are the labels. The features of a record have no order.
Lengths are checked by their checksums; the records are not, for pure Python takes a second for a few megabytes.

Sources
    https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
    https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/example/feature.proto
"""

from __future__ import annotations

import gzip
import json
import os
import re
import struct
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgeloop.errors import DataError, MissingExtra, one_line
from edgeloop.federated.device.data.samples import Samples
from edgeloop.tfrecord import HEAD, TAIL, length_of

SUFFIXES = (".tfrecord", ".tfrecords", ".tfrecord.gz", ".tfrecords.gz")
SCHEMA, FORMAT = "schema.json", "edgeloop-examples/1"
LABELS = ("y", "label")  # without a schema
TYPE = re.compile(r"(u?int\d+|float\d+|bool)\[((?:\d+(?:,\s*\d+)*)?)\]")
LIMIT_BYTES, SCHEMA_BYTES = 1 << 28, 1 << 20  # of one record, and of the schema
GZIP = b"\x1f\x8b"
LISTS = {"float_list": np.float32, "int64_list": np.int64}


def holds_tfrecords(source: str) -> bool:
    """Whether it is such a file, or a folder with one."""
    if os.path.isdir(source):
        return any(name.endswith(SUFFIXES) for name in os.listdir(source))
    return source.endswith(SUFFIXES) and os.path.isfile(source)


def read_tfrecords(source: str) -> Samples:
    """All records of the file, or of the files in the folder.

    Raises:
        DataError: A damaged file, a feature that is missing or of another size, or texts and pictures as features.
        MissingExtra: There is no protobuf, which Flower brings.
    """
    folder = source if os.path.isdir(source) else os.path.dirname(source)
    names = sorted(n for n in os.listdir(source) if n.endswith(SUFFIXES)) if folder == source else [""]
    files = [os.path.join(source, name) if name else source for name in names]
    parse, schema = _parser(), _schema(os.path.join(folder, SCHEMA))
    columns: dict[str, list[np.ndarray]] = {}
    for file in files:
        for number, record in enumerate(_records(file)):
            try:
                found = _features(parse(record), schema)
            except (ValueError, TypeError, KeyError) as e:
                raise DataError(f"{file}, record {number}: {one_line(e)}", advice="Write the file again.") from e
            if columns and set(found) != set(columns):
                raise DataError(
                    f"{file}, record {number}, has {sorted(found)}, others have {sorted(columns)}",
                    advice="Give every record the same features.",
                )
            for name, array in found.items():
                columns.setdefault(name, []).append(array)
    return _samples(source, columns, schema)


def _records(path: str) -> Iterator[bytes]:
    try:
        with open(path, "rb") as plain:
            head = plain.read(HEAD)
        packed = length_of(head) is None and head.startswith(GZIP)  # the length of a record may begin as gzip does
        with gzip.open(path) if packed else open(path, "rb") as file:
            while head := file.read(HEAD):
                length = length_of(head)
                record = file.read(length) if length is not None and length <= LIMIT_BYTES else b""
                if length is None or len(record) < length or len(file.read(TAIL)) < TAIL:
                    raise DataError(f"{path} ends within a record, or is damaged", advice="Write the file again.")
                yield record
    except (OSError, EOFError, zlib.error, struct.error) as e:
        raise DataError(f"{path} cannot be read ({one_line(e)})", advice="Write the file again.") from e


def _schema(path: str) -> Mapping[str, Any] | None:
    if not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as file:
            text = file.read(SCHEMA_BYTES + 1)
        if len(text) > SCHEMA_BYTES:
            raise ValueError(f"it is larger than {SCHEMA_BYTES:,} bytes")
        found = json.loads(text)
        if found["format"] != FORMAT:
            raise ValueError(f"its format is {found['format']!r}, expected {FORMAT!r}")
        label = found["label"]
        if label is None:
            raise ValueError("it names no label")
        types = {name: _type(text) for name, text in {**found["features"], label["name"]: label["type"]}.items()}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise DataError(f"{path} is no schema for training ({one_line(e)})", advice="Write the data again.") from e
    return {"types": types, "label": label["name"], "range": found["value_range"]}


def _type(text: str) -> tuple[np.dtype, tuple[int, ...]]:
    match = TYPE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text} is no array of numbers")
    return np.dtype(match[1]), tuple(int(size) for size in match[2].split(",") if size)


def _features(example: Any, schema: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    feature = example.features.feature
    if schema is None:
        found = {name: _numbers(name, feature[name]) for name in sorted(feature)}
    else:
        found = {name: _stored(name, feature, *schema["types"][name]) for name in schema["types"]}
    label = _label(found, schema)
    if label is not None and found[label].dtype == np.int64:
        found[label] = _cast(label, found[label], np.dtype(np.int32))
    return found


def _stored(name: str, feature: Any, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """As the schema has it: arrays of other types than float32 and int64 are stored as their bytes."""
    if name not in feature:
        raise ValueError(f"it has no {name!r}")
    if feature[name].WhichOneof("kind") == "bytes_list":
        array = np.frombuffer(b"".join(feature[name].bytes_list.value), dtype.newbyteorder("<"))
        return array.reshape(shape).astype(dtype, copy=False)
    return _cast(name, _numbers(name, feature[name]).reshape(shape), dtype)


def _cast(name: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Raises ValueError where an integer type does not hold a value: NumPy would wrap it."""
    with np.errstate(invalid="ignore"):
        found = array.astype(dtype, copy=False)
    if dtype.kind in "iub" and not np.array_equal(found, array):
        raise ValueError(f"{name!r} holds {array[found != array].flat[0]}, which {dtype} does not")
    return found


def _label(names: Collection[str], schema: Mapping[str, Any] | None) -> str | None:
    """The name of the labels among those of the features."""
    known = (schema["label"],) if schema else LABELS
    return next((name for name in known if name in names), None)


def _numbers(name: str, feature: Any) -> np.ndarray:
    kind = feature.WhichOneof("kind")
    if kind not in LISTS:
        raise ValueError(f"{name!r} holds {'texts' if kind else 'nothing'}, expected numbers")
    return np.array(getattr(feature, kind).value, LISTS[kind])


def _samples(source: str, columns: Mapping[str, Sequence[np.ndarray]], schema: Mapping[str, Any] | None) -> Samples:
    label = _label(columns, schema)
    if label is None:
        raise DataError(f"{source} has the features {sorted(columns)}, none of labels", advice="Name one y or label.")
    uneven = [name for name, arrays in columns.items() if len({array.shape for array in arrays}) > 1]
    if uneven:
        raise DataError(f"{source}: {uneven[0]} has several sizes", advice="Give every record as many values.")
    arrays = {name: np.stack(values) for name, values in columns.items()}
    if schema is None:  # a list of one number is a number
        arrays = {name: array[:, 0] if array.shape[1:] == (1,) else array for name, array in arrays.items()}
    y = arrays.pop(label)
    pixels = schema is not None and schema["range"] is not None and all(a.dtype == np.uint8 for a in arrays.values())
    return Samples(source, arrays, y, pixels=pixels, shaped=schema is not None, ordered=False)


def _parser() -> Any:
    """Bytes -> tf.train.Example, with protobuf and a description of the message's fields."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError as e:
        raise MissingExtra("protobuf is not installed", advice="Run: pip install 'edgeloop[federated]'") from e
    file = descriptor_pb2.FileDescriptorProto(name="edgeloop/example.proto", package="edgeloop", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, kind in (
        ("BytesList", kinds.TYPE_BYTES),
        ("FloatList", kinds.TYPE_FLOAT),
        ("Int64List", kinds.TYPE_INT64),
    ):
        file.message_type.add(name=name).field.add(name="value", number=1, label=kinds.LABEL_REPEATED, type=kind)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("bytes_list", "float_list", "int64_list"), 1):
        kind = ".edgeloop." + "".join(word.capitalize() for word in name.split("_"))
        feature.field.add(name=name, number=number, label=1, type=kinds.TYPE_MESSAGE, type_name=kind, oneof_index=0)
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry", options={"map_entry": True})
    entry.field.add(name="key", number=1, label=1, type=kinds.TYPE_STRING)
    entry.field.add(name="value", number=2, label=1, type=kinds.TYPE_MESSAGE, type_name=".edgeloop.Feature")
    features.field.add(
        name="feature", number=1, label=3, type=kinds.TYPE_MESSAGE, type_name=".edgeloop.Features.FeatureEntry"
    )
    example = file.message_type.add(name="Example")
    example.field.add(name="features", number=1, label=1, type=kinds.TYPE_MESSAGE, type_name=".edgeloop.Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("edgeloop.Example"))

    def parse(record: bytes) -> Any:
        try:
            return made.FromString(record)
        except Exception as e:  # of a class that each implementation of protobuf has for itself
            raise ValueError(f"it is no tf.train.Example ({type(e).__name__})") from e

    return parse
