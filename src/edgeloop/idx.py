"""Arrays of IDX files (MNIST's), packed by gzip or not: `*images-idx3-ubyte*` with `*labels-idx1-ubyte*` beside it.

Source: http://yann.lecun.com/exdb/mnist/ ("the IDX file format")
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeloop.errors import DataError

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
LIMIT_BYTES = 1 << 30  # of one file, unpacked: a gzip bomb ends here
GZIP = b"\x1f\x8b"


def read_pair(images: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, height, width] and labels uint8 [n], from the file of labels of the same name.

    Raises:
        DataError: No labels, a damaged file, or unequal numbers.
    """
    labels = images.with_name(images.name.replace(IMAGES, LABELS))
    if not labels.is_file():
        raise DataError(f"{images} has no labels beside it", advice=f"Put {labels.name} into the same folder.")
    x, y = read_idx(images, 3), read_idx(labels, 1)
    if len(x) != len(y):
        raise DataError(
            f"{images.name} has {len(x)} images and {labels.name} has {len(y)} labels, expected equal numbers",
            advice="Fetch both again.",
        )
    return x, y


def read_pairs(folder: Path, images: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of these files of `folder` end to end, as `read_pair`.

    Raises:
        DataError: As `read_pair`, or images of several sizes.
    """
    pairs = [read_pair(file) for file in images]
    sizes = {x.shape[1:] for x, _ in pairs}
    if len(sizes) > 1:
        raise DataError(
            f"{folder} holds images of sizes {sorted(sizes)}, expected one size", advice="Use a folder for each size."
        )
    x, y = (np.concatenate(column) if len(pairs) > 1 else column[0] for column in zip(*pairs))
    return x, y


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """A uint8 array with `dimensions` axes.

    Raises:
        DataError: No such file, damaged, of another kind or larger than it says.
    """
    try:
        with path.open("rb") as plain:
            packed = path.suffix == ".gz" or plain.read(2) == GZIP
        with gzip.open(path) if packed else path.open("rb") as file:
            data = file.read(LIMIT_BYTES + 1)
    except (OSError, EOFError, zlib.error) as e:
        raise DataError(
            f"{path} cannot be unpacked ({e}), expected a gzip file of the IDX format", advice="Fetch it again."
        ) from e
    header = 4 + 4 * dimensions
    if len(data) > LIMIT_BYTES or len(data) < header or data[:4] != bytes([0, 0, 8, dimensions]):
        raise DataError(
            f"{path} is not an IDX file of unsigned bytes with {dimensions} dimensions", advice="Fetch it again."
        )
    shape = struct.unpack(f">{dimensions}I", data[4:header])
    if int(np.prod(shape, dtype=object)) != len(data) - header:
        raise DataError(
            f"{path} has {len(data) - header} bytes of values, but its header says shape {shape}",
            advice="Fetch it again.",
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
