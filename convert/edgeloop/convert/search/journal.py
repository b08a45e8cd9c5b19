"""What a search has measured, one JSON line an evaluation, so that a killed search goes on where it was.

A line is `{"key", "id", "record"}`. `key` names everything the numbers depend on; lines of another key are left alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.canonical import canonical_json
from edgeloop.errors import DataError, WriteError

Arrays = Mapping[str, np.ndarray]


class Journal:
    """Records by id. `path` None: kept in memory alone.

    Raises:
        DataError: The file is no journal: a line other than the last cannot be read.
        WriteError: It cannot be read or written.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self._path, self._key = path, key
        self._records: dict[str, Mapping[str, Any]] = {}
        if path is not None and path.exists():
            with _on_disk(path):
                self._read(path)

    def __len__(self) -> int:
        return len(self._records)

    def get(self, id: str) -> Mapping[str, Any] | None:
        return self._records.get(id)

    def add(self, id: str, record: Mapping[str, Any]) -> None:
        """Keep a record of JSON values; on the disk when this returns."""
        self._records[id] = record
        if self._path is None:
            return
        line = canonical_json({"key": self._key, "id": id, "record": record}) + b"\n"
        with _on_disk(self._path), self._path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _read(self, path: Path) -> None:
        data = path.read_bytes()
        lines = data.splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("torn")
                entry = json.loads(line)
                key, id, record = entry["key"], entry["id"], entry["record"]
            except (ValueError, KeyError, TypeError) as e:
                if number < len(lines):
                    raise DataError(
                        f"line {number} of {path} is not a record of a search",
                        advice="Delete the file to start the search again.",
                    ) from e
                # the process died while it wrote this one: cut off, or the next record would be glued to it
                os.truncate(path, len(data) - len(line))
                return
            if key == self._key:
                self._records[id] = record


def search_key(float32: bytes, ranges: Mapping[str, Arrays], arrays: Arrays, settings: Mapping[str, Any]) -> str:
    """sha256 over the float32 flatbuffer, its calibrated ranges, the labels and answers that are compared with, and the
    settings (JSON values: options, the samples' digest, versions of the toolchain)."""
    digest = hashlib.sha256(hashlib.sha256(float32).digest())
    for name in sorted(ranges):
        _update(digest, name, ranges[name])
    _update(digest, "", arrays)
    digest.update(canonical_json(settings))
    return digest.hexdigest()


def _update(digest: Any, name: str, arrays: Arrays) -> None:
    for key in sorted(arrays):
        array = np.ascontiguousarray(arrays[key])
        # the header keeps two arrays of equal bytes and different shape or name apart
        digest.update(canonical_json([name, key, array.dtype.str, list(array.shape)]))
        digest.update(array.tobytes())


@contextlib.contextmanager
def _on_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise WriteError(
            f"cannot write the search journal {path}: {e.strerror or e}",
            advice="Choose a folder with free space that you may write to.",
        ) from e
