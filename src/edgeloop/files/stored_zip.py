"""Files that a zip holds uncompressed, whatever its directory says: the standard library alone.

zipfile would build an object for each of a million entries and unpack what grows a thousandfold; here both are bounded.

Source: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT (4.3.7 local header, 4.3.12 directory, 4.3.16 end)
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

END = struct.Struct("<4s6xHII2x")  # entries, directory size, directory start
ENTRY = struct.Struct("<4s6xH4xIIIHHH8xI")  # method, crc, sizes, lengths of name, extra and comment, local header
LOCAL = struct.Struct("<4s22xHH")  # lengths of name and extra
COMMENT_LIMIT_BYTES = 0xFFFF
ENTRY_LIMIT, LIMIT_BYTES = 1024, 4 << 20
DIRECTORY_LIMIT_BYTES = 4 << 20  # zipfile makes an object of each entry: at least 46 bytes of it


def packed_files(data: bytes, wanted: Iterable[str]) -> dict[str, bytes]:
    """The `wanted` files of the zip that `data` ends with, by name; those that are not in it are left out.

    Raises:
        ValueError: A damaged directory, a compressed file, a checksum that does not hold, more than 1,024 entries, more
            than 4 MiB wanted.
    """
    base, entries = _entries(data)
    found, left = {}, LIMIT_BYTES
    for name in wanted:
        if name in entries:
            found[name] = _content(data, base, entries[name], left)
            left -= len(found[name])
    return found


def _entries(data: bytes) -> tuple[int, dict[str, tuple[Any, ...]]]:
    at = data.rfind(b"PK\5\6", max(0, len(data) - END.size - COMMENT_LIMIT_BYTES))
    if at < 0:
        return 0, {}
    _, count, length, start = _unpack(END, data, at, b"PK\5\6")
    if count > ENTRY_LIMIT:
        raise ValueError(f"a zip of {count} files, more than {ENTRY_LIMIT}")
    base = at - length - start  # a zip that was made alone and put behind a model counts from its own first byte
    position, entries = at - length, {}
    for _ in range(count):
        entry = _unpack(ENTRY, data, position, b"PK\1\2")
        name = position + ENTRY.size
        entries[data[name : name + entry[5]].decode("utf-8", "replace")] = entry
        position = name + sum(entry[5:8])
    return base, entries


def bounded_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip file whose directory is short enough for zipfile to read.

    zipfile's own function finds the end record: a file may hold several, and Python versions differ in the one they
    take.

    Raises:
        OSError: The file cannot be read. zipfile.BadZipFile: It is no zip, or damaged.
        ValueError: A directory of more than DIRECTORY_LIMIT_BYTES.
    """
    with path.open("rb") as file:
        record = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if record and record[zipfile._ECD_SIZE] > DIRECTORY_LIMIT_BYTES:  # type: ignore[attr-defined]
        raise ValueError(f"a zip with a directory of more than {DIRECTORY_LIMIT_BYTES} bytes")
    return zipfile.ZipFile(path)


def packed_names(data: bytes) -> list[str]:
    """The names of all files of the zip that `data` ends with.

    Raises:
        ValueError: As packed_files.
    """
    return list(_entries(data)[1])


def _content(data: bytes, base: int, entry: tuple[Any, ...], limit: int) -> bytes:
    _, method, checksum, stored, size, *_, local = entry
    if method != 0 or stored != size:
        raise ValueError("a compressed file in the zip")
    if size > limit:
        raise ValueError(f"a file of {size} bytes in the zip, more than {limit}")
    _, name, extra = _unpack(LOCAL, data, base + local, b"PK\3\4")
    first = base + local + LOCAL.size + name + extra
    content = data[first : first + size]
    if len(content) != size or zlib.crc32(content) != checksum:
        raise ValueError("a damaged file in the zip")
    return content


def _unpack(header: struct.Struct, data: bytes, at: int, signature: bytes) -> tuple[Any, ...]:
    if not 0 <= at <= len(data) - header.size or data[at : at + 4] != signature:
        raise ValueError(f"no zip header {signature[:2].decode()} at byte {at}")
    return header.unpack_from(data, at)
