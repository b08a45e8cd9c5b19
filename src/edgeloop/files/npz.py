"""Arrays inside .npz files, found and read without unpacking the file into memory.

A member stored as it is is mapped at its place in the file; a deflated one, or one of another precision, is streamed
into a temporary file that is mapped instead. Nothing is unpickled.

Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgeloop.errors import DataError

CHUNK_BYTES = 1 << 18
LIMIT_BYTES = 16 << 30  # of one file, unpacked: a deflated megabyte can claim a thousand
LOCAL_HEADER_BYTES = 30  # of a zip member, before its name and extra field


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One array of an .npz: what its header says, and where its values begin.

    Attributes:
        entry: The zip entry.
        skip: Bytes of the .npy header before the values.
    """

    path: Path
    entry: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    skip: int

    @property
    def stored(self) -> bool:
        return self.entry.compress_type == zipfile.ZIP_STORED

    def chunks(self) -> Iterator[np.ndarray]:
        """All values, some rows [k, ...] at a time (a Fortran-ordered array in one piece); the zip's checksum is
        checked on the way.

        Raises:
            DataError: The member is damaged.
        """
        row = self.dtype.itemsize * math.prod(self.shape[1:])
        rows = self.shape[0] if self.fortran else max(1, CHUNK_BYTES // max(1, row))
        with readable(self.path), zipfile.ZipFile(self.path) as archive, archive.open(self.entry) as file:
            file.read(self.skip)
            left = self.shape[0]
            while left:
                count = min(rows, left)
                data = file.read(count * row)
                if len(data) != count * row:
                    raise EOFError(f"{self.entry.filename} ends early")
                yield np.ndarray((count, *self.shape[1:]), self.dtype, data, order="F" if self.fortran else "C")
                left -= count
            file.read(1)  # past the end: here the checksum is compared


def members(path: Path) -> dict[str, Member]:
    """The arrays of a .npz by name; their headers are read, their values are not.

    Raises:
        DataError: No .npz, damaged, pickled objects, a size that is not what the header says, or over the limit.
    """
    with path.open("rb") as file:
        if file.read(6) == np.lib.format.MAGIC_PREFIX:
            raise DataError(
                f"{path} holds one array without a name", advice="Save it by name: numpy.savez(path, x=array)."
            )
    with readable(path), zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        size = sum(entry.file_size for entry in entries)
        if size > LIMIT_BYTES:
            raise DataError(
                f"{path} unpacks to {size} bytes, the limit is {LIMIT_BYTES}",
                advice="Split it into a folder of several files.",
            )
        return {e.filename.removesuffix(".npy"): _member(path, archive, e) for e in entries if not e.is_dir()}


def mapped(member: Member) -> tuple[np.ndarray, mmap.mmap]:
    """The values of a stored member in place, read-only. They need not be aligned."""
    with member.path.open("rb") as file:
        file.seek(member.entry.header_offset)
        head = file.read(LOCAL_HEADER_BYTES)
        # the local header's own lengths: its extra field may be another than the directory's
        name, extra = int.from_bytes(head[26:28], "little"), int.from_bytes(head[28:30], "little")
        start = member.entry.header_offset + LOCAL_HEADER_BYTES + name + extra + member.skip
        return _map(file, member.shape, member.dtype, start, "F" if member.fortran else "C")


class ArrayFile:
    """A temporary file without a name that takes rows and becomes one mapped array."""

    def __init__(self, dtype: np.dtype, folder: str | os.PathLike[str] | None = None) -> None:
        self.dtype = dtype
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (`array` closes it)

    def add(self, rows: np.ndarray) -> None:
        self.file.write(np.ascontiguousarray(rows, self.dtype).data)

    def array(self, shape: tuple[int, ...]) -> tuple[np.ndarray, mmap.mmap]:
        with self.file:
            self.file.flush()
            return _map(self.file, shape, self.dtype, 0, "C")


def _map(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype, offset: int, order: Any) -> tuple[Any, mmap.mmap]:
    pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.ndarray(shape, dtype, buffer=pages, offset=offset, order=order), pages


def _member(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Member:
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        skip = file.tell()
    if dtype.hasobject:
        raise DataError(
            f"{path}: {entry.filename} holds pickled objects, which can run code", advice="Save plain arrays."
        )
    if any(size < 0 for size in shape) or entry.file_size != skip + dtype.itemsize * math.prod(shape):
        raise DataError(
            f"{path}: {entry.filename} has {entry.file_size - skip} bytes, but its header says {dtype} {list(shape)}",
            advice="Save it again.",
        )
    return Member(path=path, entry=entry, shape=shape, dtype=dtype, fortran=fortran, skip=skip)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Whatever a damaged archive raises is a DataError."""
    try:
        yield
    except (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error) as e:
        # RuntimeError: an encrypted member, or a compression that this Python does not have
        raise DataError(f"{path} is not an .npz file of plain arrays ({e})", advice="Make one with numpy.savez.") from e
