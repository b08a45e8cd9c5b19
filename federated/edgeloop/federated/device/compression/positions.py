"""Ascending positions below a size as few bytes: the code of Elias and Fano.

The low b = floor(log2(size / count)) bits of each position are packed one after another. What is left of position i,
its upper part h, sets bit h + i of a second row of bits, which comes first. Together that is about 2 + log2(size /
count) bits a position, 8.6 at 1%, where the least possible is 8.1. Both lengths follow from `count` and `size`, so
nothing is allocated by what a sender says.

Sources
    Elias 1974, "Efficient Storage and Retrieval by Content and Address of Static Files", J. ACM 21(2)
    Fano 1971, "On the Number of Bits Required to Implement an Associative Memory", MIT
"""

from __future__ import annotations

import numpy as np

from edgeloop.errors import DataError

DAMAGED = "Send the update again."


def packed_bytes(count: int, size: int) -> int:
    """How many bytes `pack` makes."""
    upper, low = _bits(count, size)
    return -(-upper // 8) - (-(count * low) // 8)


def pack(positions: np.ndarray, size: int) -> bytes:
    """`positions`: whole numbers [count], ascending, each once, below `size`."""
    count = len(positions)
    upper, low = _bits(count, size)
    row = np.zeros(upper, np.uint8)
    row[(positions >> low) + np.arange(count)] = 1
    lows = np.zeros((count, low), np.uint8)
    for bit in range(low):
        lows[:, -1 - bit] = positions >> bit & 1
    return np.packbits(row).tobytes() + np.packbits(lows).tobytes()


def unpack(data: bytes, count: int, size: int) -> np.ndarray:
    """The positions, int64 [count].

    Raises:
        DataError: Another length, or what `pack` never makes: a position twice, out of order, or beyond `size`.
    """
    if not 0 <= count <= size or len(data) != packed_bytes(count, size):
        raise DataError(f"{len(data)} bytes are no {count} positions below {size}", advice=DAMAGED)
    upper, low = _bits(count, size)
    split = -(-upper // 8)
    ones = np.flatnonzero(np.unpackbits(np.frombuffer(data, np.uint8, split)))
    if len(ones) != count or (count and ones[-1] >= upper):
        raise DataError(f"{len(ones)} positions are marked, expected {count}", advice=DAMAGED)
    positions = (ones - np.arange(count)) << low
    lows = np.unpackbits(np.frombuffer(data, np.uint8, offset=split))[: count * low].reshape(count, low)
    for bit in range(low):
        positions |= lows[:, -1 - bit].astype(np.int64) << bit
    if count and (positions[-1] >= size or (np.diff(positions) <= 0).any()):
        raise DataError(f"a position is there twice, out of order, or not below {size}", advice=DAMAGED)
    return positions


def _bits(count: int, size: int) -> tuple[int, int]:
    """(length of the upper row, low bits of a position)."""
    if not count:
        return 0, 0
    low = (size // count).bit_length() - 1
    return ((size - 1) >> low) + count, low
