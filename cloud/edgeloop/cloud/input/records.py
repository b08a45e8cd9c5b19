"""One example as a serialized tf.train.Example, and the schema that reads it back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeloop.cloud.input.examples import WHOLE, Examples, TensorType
from edgeloop.cloud.input.order import parallel, stored, unconverted
from edgeloop.cloud.input.schema import Schema
from edgeloop.cloud.input.tensor_types import listed_as
from edgeloop.extras import need

BATCH = 256  # examples that are decoded at once
LABEL = "label"


def schema_of(examples: Examples, first: dict[str, np.ndarray]) -> Schema:
    """The schema of records as `serialized` makes them.

    Args:
        first: One example by name, as it is stored.
    """
    types = {name: TensorType(dtype=str(value.dtype), shape=value.shape) for name, value in first.items()}
    label = types.pop(LABEL, None)
    return Schema(
        features=types,
        label=None if label is None else (LABEL, label),
        label_kind=examples.label_kind,
        classes=examples.classes,
        class_count=examples.class_count,
        value_range=examples.value_range,
    )


def decoded(examples: Examples, numbers: range | None = None) -> Iterator[dict[str, np.ndarray]]:
    """Every example before `Examples.finish`, in the stored order: its features and `label` by name.

    Args:
        numbers: Only these of `Numbered` examples.
    """
    tf = need("tensorflow", extra="cloud")
    if numbers is None:
        items = stored(examples.source, WHOLE)
    else:
        items = tf.data.Dataset.range(numbers.start, numbers.stop, numbers.step)
    single = items.map(unconverted(examples.source.decode), **parallel(0))
    names = list(examples.features)
    for features, *label in single.batch(BATCH).prefetch(1):
        columns = features if isinstance(features, dict) else {names[0]: features}
        arrays = {name: columns[name].numpy() for name in names}
        if label:
            arrays[LABEL] = label[0].numpy()
        for row in range(len(arrays[names[0]])):
            yield {name: array[row] for name, array in arrays.items()}


def serialized(example: dict[str, np.ndarray]) -> bytes:
    """A tf.train.Example: float32 and whole numbers as lists, bytes and float64 as raw bytes."""
    train = need("tensorflow", extra="cloud").train
    features: dict[str, Any] = {}
    for name, value in example.items():
        kind = listed_as(str(value.dtype))
        if kind == "float32":
            features[name] = train.Feature(float_list=train.FloatList(value=value.ravel()))
        elif kind:
            features[name] = train.Feature(int64_list=train.Int64List(value=value.ravel()))
        else:
            features[name] = train.Feature(bytes_list=train.BytesList(value=[value.tobytes()]))
    return train.Example(features=train.Features(feature=features)).SerializeToString(deterministic=True)
