"""The weights of a reply, read and checked: as they are, or a compressed update of the weights of the round."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.errors import DataError, one_line
from edgeloop.federated.device.compression.codec import CODEC, Codec, decode
from edgeloop.federated.device.compression.upload import BASE
from edgeloop.federated.rounds.compression_options import CompressionOptions
from edgeloop.federated.rounds.guard.refusal import Reason, Refusal

HEADER_BYTES = 4096  # of an .npy file, at most: NumPy writes 128 for a few dimensions


@dataclass(frozen=True)
class Base:
    """The weights that a round starts from, their L2 norm and their hash."""

    arrays: Mapping[str, np.ndarray]
    norm: float
    sha256: str


def base_of(arrays: Mapping[str, np.ndarray]) -> Base:
    return Base(arrays, math.sqrt(math.fsum(squares(array) for array in arrays.values())), sha256_of(arrays))


@dataclass(frozen=True)
class SentWeights:
    """What a reply holds of its weights.

    Attributes:
        sha256: Of the arrays, or of the compressed update.
        size_bytes: Of what travelled of them, without the names and hashes around it.
    """

    arrays: Mapping[str, np.ndarray]
    sha256: str
    codec: Codec
    size_bytes: int


def weights_of_arrays(record: Mapping[str, Any], base: Base) -> SentWeights | Refusal:
    """The weights of a reply that holds them as they are."""
    wrong = _wrong_names(record, base) or _wrong_sizes(record, base)  # before NumPy makes room for what a header says
    if wrong is not None:
        return wrong
    try:
        arrays = {name: array.numpy() for name, array in record.items()}
    except Exception as e:  # a hostile header raises what it likes in NumPy: MemoryError, tokenize.TokenError
        return Refusal(Reason.RECORDS, f"an array cannot be read: {one_line(f'{type(e).__name__}: {e}', 100)}")
    return SentWeights(arrays, sha256_of(arrays), Codec.NONE, sum(len(array.data) for array in record.values()))


def weights_of_update(record: dict[str, Any], base: Base, compression: CompressionOptions) -> SentWeights | Refusal:
    """The weights of a reply that holds what the training added to those of the round."""
    if record.pop(BASE, None) != base.sha256:
        return Refusal(Reason.OTHER_ROUND, "the update names other weights as its base")
    if record.get(CODEC) != compression.upload.value:
        found = one_line(record.get(CODEC), 40)
        return Refusal(Reason.COMPRESSION, f"the update is {found!r}, and {compression.upload.value} was asked for")
    names = sorted(base.arrays)
    sizes = [base.arrays[name].size for name in names]
    try:
        row = decode(record, sizes, compression.sent_share)
    except DataError as e:
        return Refusal(Reason.COMPRESSION, e.clause)
    arrays = {}
    with np.errstate(over="ignore"):  # infinity is refused, with all that is not finite
        for name, part in zip(names, np.split(row, np.cumsum(sizes)[:-1]), strict=True):
            arrays[name] = base.arrays[name] + part.reshape(base.arrays[name].shape)
    parts = [part for part in record.values() if isinstance(part, bytes)]
    return SentWeights(arrays, _sha256_of_update(record), compression.upload, sum(map(len, parts)))


def _wrong_names(sent: Mapping[str, Any], base: Base) -> Refusal | None:
    if set(sent) == set(base.arrays):
        return None
    odd = sorted(set(sent) ^ set(base.arrays))[0]
    how = "has an unknown" if odd in sent else "lacks the"
    return Refusal(Reason.NAMES, f"it {how} weight {one_line(odd, 40)!r}")


def _wrong_sizes(sent: Mapping[str, Any], base: Base) -> Refusal | None:
    """What Flower's arrays say of themselves, and how long they are."""
    for name, array in sent.items():
        expected = base.arrays[name]
        if array.dtype != "float32" or array.shape != expected.shape:
            found = one_line(f"{array.dtype} {array.shape}", 80)
            return Refusal(Reason.SHAPE, f"{name} is {found}, expected float32 {expected.shape}")
        if not 0 <= len(array.data) - expected.nbytes <= HEADER_BYTES:
            return Refusal(Reason.SHAPE, f"{name} has {len(array.data)} bytes, expected {expected.nbytes} and a header")
    return None


def wrong_arrays(arrays: Mapping[str, np.ndarray], base: Base) -> Refusal | None:
    """A refusal where an array has another shape or dtype than that of the round, or is not finite."""
    for name, array in arrays.items():
        shape = base.arrays[name].shape
        if array.shape != shape or array.dtype != np.float32:
            return Refusal(Reason.SHAPE, f"{name} is {array.dtype} {array.shape}, expected float32 {shape}")
        if not np.isfinite(array).all():
            return Refusal(Reason.NOT_FINITE, f"{name} holds NaN or infinity")
    return None


def squares(array: np.ndarray, minus: np.ndarray | None = None) -> float:
    """Sum of squares in float64, 2^16 elements at a time."""
    flat, total = array.reshape(-1), 0.0
    other = None if minus is None else minus.reshape(-1)
    for start in range(0, flat.size, 1 << 16):
        part = flat[start : start + (1 << 16)].astype(np.float64)
        if other is not None:
            part -= other[start : start + (1 << 16)]
        total += float(part @ part)
    return total


def _sha256_of_update(record: Mapping[str, Any]) -> str:
    """Of a compressed update without its base: the same update of other weights has the same hash."""
    found = hashlib.sha256()
    for key, value in sorted(record.items()):
        data = value if isinstance(value, bytes) else str(value).encode()
        found.update(f"{key} {len(data)}\n".encode() + data)
    return found.hexdigest()


def sha256_of(arrays: Mapping[str, np.ndarray]) -> str:
    """Of names, shapes and bytes."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype} {array.shape}\n".encode())
        found.update(array.data)
    return found.hexdigest()
