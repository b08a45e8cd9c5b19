"""A registry's folder as a source: a stick, a share, a folder that rsync fills. Python 3.9 syntax, standard library."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Hashable, Iterator
from typing import BinaryIO

from edgeloop.edge.on_device.serving.regular_file import open_regular
from edgeloop.errors import DataError, DeviceError, IntegrityError
from edgeloop.registry.versions.version_index import INDEX, LIMIT_BYTES


class FolderSource:
    """As `ReleaseSource`."""

    retry_after_s: float | None = None

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def index(self, seen: Hashable) -> tuple[bytes, Hashable] | None:
        with self._opened(INDEX) as file:
            found = os.fstat(file.fileno())
            stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
            return None if stamp == seen else (_read(file, INDEX, LIMIT_BYTES), stamp)

    def small_file(self, path: str, limit_bytes: int) -> bytes:
        with self._opened(path) as file:
            return _read(file, path, limit_bytes)

    @contextlib.contextmanager
    def open(self, path: str, size: int) -> Iterator[_OpenFile]:
        with self._opened(path) as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                raise IntegrityError(
                    f"{os.path.join(self.folder, path)} has {found} bytes, and its manifest says {size}",
                    advice="Publish the bundle again.",
                )
            yield _OpenFile(file)

    def _opened(self, path: str) -> BinaryIO:
        try:
            return open_regular(os.path.join(self.folder, path))
        except DataError as e:
            raise DeviceError(e.found, advice="Check that the folder is mounted and holds what was published.") from e


class _OpenFile:
    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def read(self, offset: int, size: int) -> bytes:
        self.file.seek(offset)
        return self.file.read(size)


def _read(file: BinaryIO, path: str, limit_bytes: int) -> bytes:
    data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise IntegrityError(
            f"{path} has more than {limit_bytes} bytes", advice="Check who writes there; publish the bundle again."
        )
    return data
