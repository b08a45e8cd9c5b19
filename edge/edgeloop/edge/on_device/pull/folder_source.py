"""A registry's folder as a source: a stick, a share, a folder that rsync fills. Python 3.9 syntax, standard library."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Hashable, Iterator
from typing import BinaryIO

from edgeloop.edge.on_device.serving.regular_file import open_regular
from edgeloop.errors import DataError, DeviceError, IntegrityError
from edgeloop.registry.versions.version_index import INDEX, LIMIT_BYTES

CHECK = "Check that the folder is mounted and holds what was published."


class FolderSource:
    """As `ReleaseSource`."""

    retry_after_s: float | None = None

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def index(self, seen: Hashable) -> tuple[bytes, Hashable] | None:
        with self._opened(INDEX) as file, _reading(self._path(INDEX)):
            found = os.fstat(file.fileno())
            stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
            return None if stamp == seen else (_read(file, INDEX, LIMIT_BYTES), stamp)

    def small_file(self, path: str, limit_bytes: int) -> bytes:
        with self._opened(path) as file, _reading(self._path(path)):
            return _read(file, path, limit_bytes)

    @contextlib.contextmanager
    def open(self, path: str, size: int) -> Iterator[_OpenFile]:
        with self._opened(path) as file:
            with _reading(self._path(path)):
                found = os.fstat(file.fileno()).st_size
            if found != size:
                raise IntegrityError(
                    f"{self._path(path)} has {found} bytes, and its manifest says {size}",
                    advice="Publish the bundle again.",
                )
            yield _OpenFile(file, self._path(path), size)

    def _path(self, path: str) -> str:
        return os.path.join(self.folder, path)

    def _opened(self, path: str) -> BinaryIO:
        try:
            return open_regular(self._path(path))
        except DataError as e:
            raise DeviceError(e.found, advice=CHECK) from e


class _OpenFile:
    def __init__(self, file: BinaryIO, path: str, size: int) -> None:
        self.file, self.path, self.size = file, path, size

    def read(self, offset: int, size: int) -> bytes:
        with _reading(self.path):
            self.file.seek(offset)
            data = self.file.read(size)
        if not data and offset < self.size:
            raise DeviceError(f"{self.path} ended after {offset} of {self.size} bytes", advice=CHECK)
        return data


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """A disk that fails, or a share that is gone, is the source's fault, not the device's own."""
    try:
        yield
    except OSError as e:
        raise DeviceError(f"{path} cannot be read ({e.strerror})", advice=CHECK) from e


def _read(file: BinaryIO, path: str, limit_bytes: int) -> bytes:
    data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise IntegrityError(
            f"{path} has more than {limit_bytes} bytes", advice="Check who writes there; publish the bundle again."
        )
    return data
