"""Types of features as people write them: `float32[28,28,1]`, `int64[]`, `string[]`, `image`."""

from __future__ import annotations

import re

from edgeloop.cloud.input.examples import TensorType
from edgeloop.errors import OptionsError
from edgeloop.settings import suggestion

IMAGE = "image"  # an encoded image; its shape is (0, 0, 0) until `image_size` and `channels` say it
STORED = ("float32", "float64", "int64", "int32", "int16", "int8", "uint8", "bool", "string")


def tensor_type(text: str, where: str) -> TensorType:
    """The type that a text says.

    Raises:
        OptionsError: It says none.
    """
    if text == IMAGE:
        return TensorType(dtype=IMAGE, shape=(0, 0, 0))
    found = re.fullmatch(r"(\w+)\[\s*((?:\d+\s*(?:,\s*\d+\s*)*)?)\]", text.strip())
    if found is None:
        advice = "Write the dtype and the shape of one example, e.g. float32[28,28,1] or int64[], or image."
        raise OptionsError(f"{where} is {text!r}", advice=advice)
    dtype, sizes = found.groups()
    if dtype not in STORED:
        raise OptionsError(f"{where} has the dtype {dtype!r}", advice=suggestion(dtype, STORED))
    return TensorType(dtype=dtype, shape=tuple(int(size) for size in sizes.split(",") if size.strip()))


def as_text(kind: TensorType) -> str:
    """The text that `tensor_type` reads as `kind`."""
    return IMAGE if kind.dtype == IMAGE else f"{kind.dtype}[{','.join(map(str, kind.shape))}]"


def listed_as(dtype: str) -> str | None:
    """What a tf.train.Example stores a dtype as: `float32` or `int64` in a list; None: as raw bytes."""
    if dtype == "float32":
        return dtype
    return "int64" if dtype == "bool" or dtype.startswith("int") else None
