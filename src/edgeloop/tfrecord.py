"""The frame of a TFRecord: its length with a checksum before it, its own checksum behind. Python 3.9 syntax.

Sources
    https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
    RFC 3720, appendix B.4: CRC-32C
"""

from __future__ import annotations

import struct
from functools import cache

HEAD, TAIL = 12, 4  # bytes before and after a record


def framed(record: bytes) -> bytes:
    """A record with its frame."""
    head = struct.pack("<Q", len(record))
    return b"".join([head, struct.pack("<I", masked(head)), record, struct.pack("<I", masked(record))])


def length_of(head: bytes) -> int | None:
    """Bytes of the record that HEAD bytes announce; None: they are damaged."""
    if len(head) < HEAD or masked(head[:8]) != struct.unpack("<I", head[8:])[0]:
        return None
    return int(struct.unpack("<Q", head[:8])[0])


def masked(data: bytes) -> int:
    """The checksum as it is stored: CRC-32C, rotated by 15 bits, plus a constant."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC-32C of some bytes, a byte at a time: for small records."""
    crc, table = 0xFFFFFFFF, _table()
    for byte in data:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    found = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        found.append(crc)
    return tuple(found)
