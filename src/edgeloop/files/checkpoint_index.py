"""A TensorFlow checkpoint's index in, the names, shapes and types of its variables out. No TensorFlow, no data read.

Sources
    table    https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/lib/io/format.h (LevelDB's table)
    entries  https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/protobuf/tensor_bundle.proto
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgeloop.files.protobuf import messages, varint, whole
from edgeloop.files.tensor_types import tf_shape, tf_type

MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
FOOTER_BYTES = 48
PLAIN = 0  # not compressed, as TensorFlow writes an index
ENTRIES_LIMIT = 1_000_000


def read_checkpoint_index(data: memoryview) -> list[dict[str, Any]]:
    """[{name, shape, dtype}] in the order of the names.

    Raises:
        ValueError: No such table, damaged, compressed, or over a limit.
    """
    if len(data) < FOOTER_BYTES or bytes(data[-8:]) != MAGIC:
        raise ValueError("variables.index is not the index of a checkpoint")
    footer = data[-FOOTER_BYTES:]
    _, at = _handle(footer, 0)  # of the meta index
    (start, size), _ = _handle(footer, at)
    found: list[dict[str, Any]] = []
    for _, place in _entries(data, start, size):
        for name, value in _entries(data, *_handle(place, 0)[0]):
            if name:  # the empty one is about the checkpoint itself
                shapes = messages(value, 2)
                shape = tf_shape(shapes[-1]) if shapes else []
                found.append(
                    {"name": name.decode("utf-8", "replace"), "shape": shape, "dtype": tf_type(whole(value, 1))}
                )
            if len(found) > ENTRIES_LIMIT:
                raise ValueError(f"variables.index has more than {ENTRIES_LIMIT} entries")
    return found


def _handle(message: memoryview, at: int) -> tuple[tuple[int, int], int]:
    start, at = varint(message, at)
    size, at = varint(message, at)
    return (start, size), at


def _entries(data: memoryview, start: int, size: int) -> Iterator[tuple[bytes, memoryview]]:
    """Of a block: each key shares its first bytes with the one before it."""
    if start + size >= len(data):
        raise ValueError("a block of variables.index lies outside the file")
    if data[start + size] != PLAIN:
        raise ValueError("variables.index is compressed, as TensorFlow never writes it")
    block = data[start : start + size]
    end = size - 4 - 4 * int.from_bytes(block[-4:], "little")  # restart points, and how many there are
    at, key = 0, b""
    while at < end:
        shared, at = varint(block, at)
        own, at = varint(block, at)
        length, at = varint(block, at)
        key = key[:shared] + bytes(block[at : at + own])
        at += own + length
        if at > end:
            raise ValueError("a block of variables.index is cut off")
        yield key, block[at - length : at]
