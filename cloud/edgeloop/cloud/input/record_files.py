"""TFRecord files walked without TensorFlow: how many records there are, and where one is cut off.

Source: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from edgeloop.errors import DataError
from edgeloop.tfrecord import HEAD, TAIL

GZIP = b"\x1f\x8b"
WALKED = 2_000_000  # records that are walked at most: a second or two


def is_packed(path: Path) -> bool:
    """Whether the file is packed by gzip."""
    with path.open("rb") as file:
        return file.read(2) == GZIP


def counts(files: Sequence[Path]) -> tuple[int, ...] | None:
    """Records of each file; None: packed, or too many to be walked at once.

    Raises:
        DataError: A file ends within a record: both are named.
    """
    if any(map(is_packed, files)):
        return None
    found, left = [], WALKED
    for file in files:
        number = count(file, left)
        if number is None:
            return None
        found.append(number)
        left -= number
    return tuple(found)


def count(path: Path, limit: int = 1 << 62) -> int | None:
    """Records of one file, packed or not; None: more than `limit`.

    Raises:
        DataError: It ends within a record, or is damaged.
    """
    size = path.stat().st_size
    packed = is_packed(path)
    number = 0
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            while head := file.read(HEAD):
                if number == limit:
                    return None
                if not _passed(file, head, None if packed else size):
                    raise EOFError
                number += 1
    except (OSError, EOFError, zlib.error) as e:
        raise damaged(path, number) from e
    return number


def damaged(path: Path, record: int) -> DataError:
    """The error about a record, counted from 0."""
    return DataError(f"{path}: record {record} (counted from 0) is damaged", advice="Write the file again.")


def _passed(file: IO[bytes] | gzip.GzipFile, head: bytes, size: int | None) -> bool:
    """Go on behind the record whose head was read; False: the file ends before."""
    if len(head) < HEAD:
        return False
    (length,) = struct.unpack("<Q", head[:8])
    if size is None:
        while length + TAIL > 0:
            piece = file.read(min(length + TAIL, 1 << 20))
            if not piece:
                return False
            length -= len(piece)
        return True
    end = file.tell() + length + TAIL
    file.seek(min(end, size))
    return end <= size
