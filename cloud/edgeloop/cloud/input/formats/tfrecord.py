"""TFRecord files of tf.train.Example, packed by gzip or not: by the schema.json beside them, or by `[data] schema`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.cloud.input.arrays import rescaling
from edgeloop.cloud.input.damage import until_late
from edgeloop.cloud.input.examples import Examples, LabelKind, Sharded, TensorType
from edgeloop.cloud.input.options import DataOptions
from edgeloop.cloud.input.record_files import counts, damaged, is_packed
from edgeloop.cloud.input.schema import Schema, read_schema
from edgeloop.cloud.input.tensor_types import IMAGE, listed_as, tensor_type
from edgeloop.errors import DataError, one_line
from edgeloop.extras import need
from edgeloop.settings import suggestion

LABEL = "label"


def open_tfrecord(options: DataOptions, files: Sequence[Path]) -> Examples:
    """Examples of all files; each file is one shard.

    Raises:
        DataError: No schema, files packed and not, one that ends within a record.
        OptionsError: A type of `[data] schema` that is none.
    """
    schema = _schema(options, files)
    packed = {is_packed(file) for file in files}
    if len(packed) > 1:
        raise DataError(f"some files of {options.path} are packed by gzip, others not", advice="Write all alike.")
    known = schema.counts
    number = counts(files) if known is None else tuple(known.get(file.name, -1) for file in files)
    if number is not None and min(number) < 0:
        raise DataError(f"{options.path}: schema.json does not name all files", advice="Write the data again.")
    kind = "GZIP" if packed.pop() else ""
    decode = _decoder(schema, batch=False)
    images = any(each.dtype == IMAGE for each in schema.features.values())
    shown = {name: _read_type(each, schema) for name, each in schema.features.items()}
    label = schema.label and _label_type(schema.label[1], schema)
    return Examples(
        name=str(options.path),
        features=shown,
        label=label or None,
        label_kind=schema.label_kind,
        classes=schema.classes,
        class_count=schema.class_count,
        stored_bytes=sum(each.size_bytes for each in (*shown.values(), *([label] if label else []))),
        source=Sharded(
            files=tuple(files),
            counts=number,
            records=lambda file: need("tensorflow", extra="cloud").data.TFRecordDataset(file, kind),
            decode=decode,
            decode_batch=None if images else _decoder(schema, batch=True),
        ),
        value_range=schema.value_range,
        finish=rescaling(
            {name: np.empty(0, _stored(each)) for name, each in schema.features.items()}, schema.value_range
        ),
        find_damage=lambda: _find_damage(files, kind, decode),
    )


def _schema(options: DataOptions, files: Sequence[Path]) -> Schema:
    """What the options say, else what lies beside the files."""
    if options.schema is None:
        schema = read_schema(files[0].parent)
        if schema is None:
            raise DataError(
                f"{options.path} has no schema.json; its first record holds {_first_record(files[0])}",
                advice='Say what to read, e.g. [data] schema = {x = "float32[28,28,1]", y = "int64[]"}.',
            )
        ranged = replace(schema, value_range=options.value_range or schema.value_range)
        return _some_features(ranged, options)
    types = {name: tensor_type(text, f"schema.{name}") for name, text in options.schema.items()}
    name = options.label or LABEL
    if options.label and name not in types:
        raise DataError(f"[data] schema has no {name!r}", advice=suggestion(name, types))
    label = types.pop(name, None)
    classes = label is not None and (label.dtype == "string" or (label.dtype[0] in "iu" and label.shape == ()))
    if label is not None and label.dtype == "string" and not options.classes:
        raise DataError(f"the labels of {options.path} are texts", advice="Name them: [data] classes = [...].")
    shape = (*(options.image_size or (0, 0)), options.channels)
    if any(each.dtype == IMAGE for each in types.values()) and options.image_size is None:
        raise DataError(f"{options.path} holds encoded images", advice="Give [data] image-size = [HEIGHT, WIDTH].")
    schema = Schema(
        features={key: replace(each, shape=shape) if each.dtype == IMAGE else each for key, each in types.items()},
        label=None if label is None else (name, label),
        label_kind=None if label is None else LabelKind.CLASSES if classes else LabelKind.NUMBERS,
        classes=options.classes,
        class_count=len(options.classes),
        value_range=options.value_range or ((0.0, 1.0) if any(e.dtype == IMAGE for e in types.values()) else None),
    )
    return _some_features(schema, options)


def _some_features(schema: Schema, options: DataOptions) -> Schema:
    for name in options.features:
        if name not in schema.features:
            raise DataError(f"{options.path} has no {name!r}", advice=suggestion(name, schema.features))
    names = options.features or tuple(schema.features)
    return replace(schema, features={name: schema.features[name] for name in names})


def _first_record(file: Path) -> str:
    tf = need("tensorflow", extra="cloud")
    for record in tf.data.TFRecordDataset(str(file), "GZIP" if is_packed(file) else "").take(1):
        found = tf.train.Example.FromString(record.numpy()).features.feature
        return ", ".join(f"{name} ({found[name].WhichOneof('kind')})" for name in sorted(found))
    return "nothing"


def _stored(kind: TensorType) -> str:
    """The dtype of a decoded tensor before `finish`."""
    return "uint8" if kind.dtype == IMAGE else kind.dtype


def _read_type(kind: TensorType, schema: Schema) -> TensorType:
    stored = _stored(kind)
    return TensorType(
        dtype="float32" if stored == "uint8" and schema.value_range is not None else stored, shape=kind.shape
    )


def _label_type(kind: TensorType, schema: Schema) -> TensorType:
    return (
        TensorType(dtype="int64", shape=())
        if schema.label_kind is LabelKind.CLASSES
        else replace(kind, dtype="float32")
    )


def _decoder(schema: Schema, batch: bool) -> Callable:
    """Serialized tf.train.Examples, one or [b], -> (features, labels)."""
    types = dict(schema.features) | ({} if schema.label is None else {schema.label[0]: schema.label[1]})

    def decode(record: Any) -> tuple[Any, ...]:
        tf = need("tensorflow", extra="cloud")
        parse = tf.io.parse_example if batch else tf.io.parse_single_example
        found = parse(record, {name: _feature(tf, kind) for name, kind in types.items()})
        tensors = {name: _tensor(tf, found[name], kind, batch) for name, kind in types.items()}
        features = {name: tensors[name] for name in schema.features}
        inputs = next(iter(features.values())) if len(features) == 1 else features
        return (inputs,) if schema.label is None else (inputs, _label(tf, tensors[schema.label[0]], schema))

    return decode


def _feature(tf: Any, kind: TensorType) -> Any:
    listed = listed_as(kind.dtype)
    return tf.io.FixedLenFeature(kind.shape if listed else (), tf.as_dtype(listed or "string"))


def _tensor(tf: Any, value: Any, kind: TensorType, batch: bool) -> Any:
    if kind.dtype == "string":
        return value
    if kind.dtype == IMAGE:
        image = tf.io.decode_image(value, kind.shape[-1], expand_animations=False)
        return tf.ensure_shape(tf.cast(tf.round(tf.image.resize(image, kind.shape[:2])), tf.uint8), kind.shape)
    dtype = tf.as_dtype(kind.dtype)
    if value.dtype == tf.string:
        return tf.reshape(tf.io.decode_raw(value, dtype), ((-1,) if batch else ()) + kind.shape)
    return tf.cast(value, dtype)


def _label(tf: Any, value: Any, schema: Schema) -> Any:
    if schema.label_kind is LabelKind.NUMBERS:
        return tf.cast(value, tf.float32)
    if value.dtype != tf.string:
        return tf.cast(value, tf.int64)
    same = tf.equal(value[..., None], tf.constant(schema.classes))
    known = tf.debugging.Assert(tf.reduce_all(tf.reduce_any(same, -1)), ["a label is none of the classes", value])
    with tf.control_dependencies([known] if known is not None else []):
        return tf.argmax(same, -1, output_type=tf.int64)


def _find_damage(files: Sequence[Path], kind: str, decode: Callable) -> None:
    """Read all again, one record after another, up to the one that cannot be read or decoded."""
    tf = need("tensorflow", extra="cloud")
    for file in files:
        record = 0
        try:
            for item in until_late(tf.data.TFRecordDataset(str(file), kind)):
                decode(item)
                record += 1
        except tf.errors.DataLossError as e:
            raise damaged(file, record) from e
        except (tf.errors.InvalidArgumentError, ValueError) as e:
            raise DataError(
                f"{file}: record {record} (counted from 0) is not what the schema says: {_plain(e)}",
                advice="Correct [data] schema, or write the file again.",
            ) from e


def _plain(error: Exception) -> str:
    """TensorFlow's words without the names of its nodes."""
    return one_line(re.sub(r"\{\{.*?\}\}|\[Op:.*", "", str(error)))
