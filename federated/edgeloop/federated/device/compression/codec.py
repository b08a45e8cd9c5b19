"""An update as fewer bytes, and back: int8, the largest values alone (top-k), or both. Both ends use this file.

What travels is one record (docs/federated-protocol.md): `codec`, `values`, and as the codec needs them `scales`,
`count` and `indices`. All weights together are one row of numbers, in `get_weights` order.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeloop.errors import DataError, one_line
from edgeloop.federated.device.compression.positions import pack, packed_bytes, unpack
from edgeloop.federated.device.compression.quantize import block_count, dequantize, quantize

CODEC, VALUES, SCALES, COUNT, INDICES = "codec", "values", "scales", "count", "indices"
ADVICE = "Send the update as docs/federated-protocol.md has it."


class Codec(str, enum.Enum):
    """How an update travels."""

    NONE = "none"  # the weights themselves, float32
    INT8 = "int8"  # of each value a byte
    TOP_K = "top-k"  # the largest values alone, float32
    TOP_K_INT8 = "top-k-int8"  # the same, of each a byte

    @property
    def sparse(self) -> bool:
        return self in (Codec.TOP_K, Codec.TOP_K_INT8)

    @property
    def keys(self) -> set[str]:
        """What the record of an update holds."""
        found = {CODEC, VALUES}
        if self.sparse:
            found |= {COUNT, INDICES}
        return found if self is Codec.TOP_K else found | {SCALES}


CODECS = tuple(codec.value for codec in Codec if codec is not Codec.NONE)  # a device says which of them it can send


def most_values(share: float, size: int) -> int:
    """How many of `size` values a sparse codec sends, 1 at least."""
    return max(1, math.ceil(share * size - 1e-9))


def encode(
    row: np.ndarray,
    sizes: Sequence[int],
    codec: Codec,
    share: float = 1.0,
    random: np.random.Generator | None = None,
) -> dict[str, Any]:
    """The record of an update.

    Args:
        row: float32 [n], finite: what the update adds to the weights.
        sizes: Of each weight; n together. int8 gives each weight scales of its own.
        share: Of the values, for a sparse codec.
        random: Rounds int8 without bias; None: to the nearest. A sparse codec always does: its errors are sent later.
    """
    if not codec.sparse:
        parts = [quantize(part, random) for part in np.split(row, np.cumsum(sizes)[:-1])]
        values, scales = (np.concatenate(found) for found in zip(*parts))
        return {CODEC: codec.value, VALUES: values.tobytes(), SCALES: scales.astype("<f4").tobytes()}
    at = largest(row, most_values(share, row.size))
    record: dict[str, Any] = {CODEC: codec.value, COUNT: len(at), INDICES: pack(at, row.size)}
    if codec is Codec.TOP_K:
        return {**record, VALUES: row[at].astype("<f4").tobytes()}
    values, scales = quantize(row[at])
    return {**record, VALUES: values.tobytes(), SCALES: scales.astype("<f4").tobytes()}


def largest(row: np.ndarray, count: int) -> np.ndarray:
    """Ascending positions of the `count` values of largest size, fewer where others are 0; of equal ones the first."""
    size = np.abs(row)
    least = np.partition(size, row.size - count)[row.size - count]
    if not least:
        return np.flatnonzero(size)
    above, equal = np.flatnonzero(size > least), np.flatnonzero(size == least)
    return np.sort(np.concatenate([above, equal[: count - above.size]]))


def decode(record: Mapping[str, Any], sizes: Sequence[int], share: float) -> np.ndarray:
    """The row of numbers that a record stands for, float32 [n]. The record may come from a device that is hostile.

    Raises:
        DataError: It is none of an update of these sizes and that share, or holds NaN or infinity.
    """
    codec, size = checked_codec(record), sum(sizes)
    if codec.sparse:
        count, most = record[COUNT], most_values(share, size)
        if type(count) is not int or not 0 <= count <= most:
            raise DataError(f"count is {one_line(count, 40)}, expected 0 to {most}", advice=ADVICE)
        _check_bytes(record, INDICES, packed_bytes(count, size))
        at, values = unpack(record[INDICES], count, size), _values(record, codec, [count])
        row = np.zeros(size, np.float32)
        row[at] = values
        return row
    return _values(record, codec, sizes)


def checked_codec(record: Mapping[str, Any]) -> Codec:
    """The codec of a record that has the keys of it.

    Raises:
        DataError: An unknown codec, or other keys.
    """
    if record.get(CODEC) not in CODECS:
        found = one_line(record.get(CODEC), 40)
        raise DataError(f"the codec is {found!r}, expected one of {', '.join(CODECS)}", advice=ADVICE)
    codec = Codec(record[CODEC])
    if set(record) != codec.keys:
        odd = sorted(set(record) ^ codec.keys)[0]
        how = "an unknown" if odd in record else "no"
        raise DataError(f"the update has {how} key {one_line(odd, 40)!r}", advice=ADVICE)
    return codec


def _values(record: Mapping[str, Any], codec: Codec, sizes: Sequence[int]) -> np.ndarray:
    """float32 [n]. Lengths are checked before anything is made of the bytes."""
    size = sum(sizes)
    if codec is Codec.TOP_K:
        _check_bytes(record, VALUES, 4 * size)
        values = np.frombuffer(record[VALUES], "<f4").astype(np.float32)
        if not np.isfinite(values).all():
            raise DataError("a value is NaN or infinity", advice=ADVICE)
        return values
    _check_bytes(record, VALUES, size)
    _check_bytes(record, SCALES, 4 * sum(map(block_count, sizes)))
    steps, scales = np.frombuffer(record[VALUES], np.int8), np.frombuffer(record[SCALES], "<f4").astype(np.float32)
    # 127 steps of it are finite too; NaN is not at most anything
    if not ((scales >= 0) & (scales <= np.finfo(np.float32).max / 128)).all():
        raise DataError("a scale is NaN, infinite or below 0", advice=ADVICE)
    steps_of, scales_of = np.cumsum(sizes)[:-1], np.cumsum([block_count(one) for one in sizes])[:-1]
    parts = zip(np.split(steps, steps_of), np.split(scales, scales_of))
    return np.concatenate([dequantize(*part) for part in parts])


def _check_bytes(record: Mapping[str, Any], key: str, expected: int) -> None:
    found = record[key]
    if type(found) is not bytes or len(found) != expected:
        what = f"{len(found)} bytes" if type(found) is bytes else f"of type {type(found).__name__}"
        raise DataError(f"{key} is {what}, expected {expected} bytes", advice=ADVICE)
