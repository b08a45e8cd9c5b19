"""Height and width of an image file by its header, without decoding it.

Sources
    PNG   https://www.w3.org/TR/png-3/#11IHDR
    JPEG  ITU-T T.81, table B.1 (SOF markers)
    GIF   https://www.w3.org/Graphics/GIF/spec-gif89a.txt, 18
    BMP   https://learn.microsoft.com/windows/win32/api/wingdi/ns-wingdi-bitmapinfoheader
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO

from edgeloop.errors import DataError

NO_FRAME = {0xC4, 0xC8, 0xCC}  # markers among C0 to CF that begin no frame
ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length


def image_size(path: Path) -> tuple[int, int]:
    """Height and width.

    Raises:
        DataError: The file cannot be read, or is none of these formats.
    """
    try:
        with path.open("rb") as file:
            size = _size(file)
    except (OSError, struct.error) as e:
        raise _refused(path) from e
    if size is None or min(size) < 1:
        raise _refused(path)
    return size


def _refused(path: Path) -> DataError:
    return DataError(f"{path} is not a PNG, JPEG, BMP or GIF image", advice="Remove or replace it.")


def _size(file: IO[bytes]) -> tuple[int, int] | None:
    head = file.read(26)
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        width, height = struct.unpack(">II", head[16:24])
        return height, width
    if head[:4] == b"GIF8":
        width, height = struct.unpack("<HH", head[6:10])
        return height, width
    if head[:2] == b"BM":
        width, height = struct.unpack("<ii", head[18:26])
        return abs(height), width
    return _jpeg(file) if head[:2] == b"\xff\xd8" else None


def _jpeg(file: IO[bytes]) -> tuple[int, int] | None:
    """The first frame's size; segments before it are skipped."""
    file.seek(2)
    while file.read(1) == b"\xff":
        marker = ord(file.read(1) or b"\0")
        if marker == 0xFF:  # a fill byte before a marker
            file.seek(-1, 1)
        elif 0xC0 <= marker <= 0xCF and marker not in NO_FRAME:
            height, width = struct.unpack(">3xHH", file.read(7)[:7])
            return height, width
        elif marker not in ALONE:
            (length,) = struct.unpack(">H", file.read(2))
            file.seek(length - 2, 1)
    return None
